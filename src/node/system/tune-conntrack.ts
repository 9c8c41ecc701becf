/** Makes the connection tracking settings at the start, and later if the kernel is not ready for them then. */
import { spawnSync } from 'node:child_process';
import { guarded } from '../../callbacks/guarded.js';
import type { Logger } from '../../log/logger.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';
import { ConntrackTuning, type ConntrackSettings } from './conntrack-tuning.js';
import { systemCode, systemFiles, type SystemFiles } from './files.js';

const retryMs = 10_000;
const modprobeTimeoutMs = 5_000;

export interface TuneOptions {
  readonly files?: SystemFiles;
  /** Has the kernel load connection tracking; called once, and only when it has not. */
  readonly load?: (log: Logger) => void;
  /** Pause between looks at a kernel without connection tracking, milliseconds. */
  readonly retryMs?: number;
}

export interface Tuning {
  /** Whether everything is set that can be. */
  readonly done: boolean;
  /** Ends the waiting for the kernel. */
  stop(): void;
}

/**
 * Makes the settings. Where the kernel has no connection tracking it is asked to load it; if that does not help, the
 * settings are made when it appears, which a timer looks for that does not keep the process alive. Never throws for a
 * setting that can't be made: the log says so.
 */
export function tuneConntrack(settings: ConntrackSettings, log: Logger, options: TuneOptions = {}): Tuning {
  const tuning = new ConntrackTuning(settings, log, options.files ?? systemFiles());
  let state = tuning.apply();
  if (state === 'pending') {
    (options.load ?? loadConntrack)(log);
    state = tuning.apply();
  }
  if (state === 'done') return { done: true, stop: () => undefined };
  let timer: NodeJS.Timeout;
  const wait = (): void => {
    timer = setTimeout(
      guarded('set up connection tracking', () => {
        state = tuning.apply();
        if (state === 'pending') wait();
        else log.info('conntrack module loaded, settings applied');
      }),
      options.retryMs ?? retryMs,
    );
    timer.unref();
  };
  wait();
  return {
    get done() {
      return state === 'done';
    },
    stop: () => {
      clearTimeout(timer);
    },
  };
}

/**
 * Asks connection tracking for entries: the kernel then loads it by itself, with the host's modprobe, so that this
 * works from a container that has none. Where that is forbidden, a modprobe of our own is tried.
 */
export function loadConntrack(log: Logger): void {
  try {
    const connection = ConntrackConnection.open();
    try {
      // Protocol 0 has no entries. Whatever is there is not read.
      connection.listFlows('ip', { protocol: 0 }, () => undefined, { onRestart: () => undefined });
      return;
    } finally {
      connection.close();
    }
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    log.debug(2, 'conntrack module not loaded by the kernel', { problem: error });
  }
  const { error, status, stderr } = spawnSync('modprobe', ['nf_conntrack'], {
    encoding: 'utf8',
    timeout: modprobeTimeoutMs,
  });
  if (error !== undefined && systemCode(error) === 'ENOENT') return;
  if (error !== undefined || status !== 0) {
    log.debug(2, 'modprobe nf_conntrack failed', { problem: error ?? stderr.trim() });
  }
}
