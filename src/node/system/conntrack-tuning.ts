/**
 * The size and the timeouts of the kernel's connection tracking table (conntrack.md section 5).
 *
 * Three things are done differently from upstream: a limit that an administrator set higher is not lowered, a setting
 * that can't be written is a warning and not the end, and a kernel that has not loaded connection tracking yet gets its
 * settings as soon as it has.
 */
import type { Logger } from '../../log/logger.js';
import { countCPUs } from './cpus.js';
import { systemFiles, type SystemFiles } from './files.js';
import { SettingError, sysctlPath, writeSetting } from './setting.js';

export interface ConntrackSettings {
  /** Entries per processor; 0: the limit is left alone, and `min` does not count. */
  readonly maxPerCore: number;
  /** The least number of entries. */
  readonly min: number;
  /** Timeouts in milliseconds; 0 leaves the kernel's. */
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
  /** Whether packets outside of a TCP window are let through; false leaves the kernel's setting. */
  readonly tcpBeLiberal: boolean;
}

/** 'pending': the kernel has no connection tracking yet, so something is left to do. */
export type TuningState = 'done' | 'pending';

/** More than this many entries per 'so many per core' would take gigabytes; an explicit minimum may go beyond. */
const scaledLimit = 1 << 20;
const entriesPerBucket = 4;

const liberalField = 'conntrack.tcpBeLiberal';
const hashSizePath = '/sys/module/nf_conntrack/parameters/hashsize';
/** There once the kernel has connection tracking, as a module or built in. */
const modulePath = '/sys/module/nf_conntrack';
const sysctl = {
  max: 'net/netfilter/nf_conntrack_max',
  tcpEstablished: 'net/netfilter/nf_conntrack_tcp_timeout_established',
  tcpCloseWait: 'net/netfilter/nf_conntrack_tcp_timeout_close_wait',
  tcpBeLiberal: 'net/netfilter/nf_conntrack_tcp_be_liberal',
  udp: 'net/netfilter/nf_conntrack_udp_timeout',
  udpStream: 'net/netfilter/nf_conntrack_udp_timeout_stream',
} as const;

/** How many entries the table shall hold; undefined: whatever it holds now. */
export function conntrackMax(
  settings: Pick<ConntrackSettings, 'maxPerCore' | 'min'>,
  cpus: number,
): number | undefined {
  if (settings.maxPerCore <= 0) return undefined;
  return Math.max(Math.min(settings.maxPerCore * cpus, scaledLimit), settings.min);
}

/** Everything there is to set, each until it is done or has failed for good. */
export class ConntrackTuning {
  private readonly left: Map<string, () => void>;
  private reportedPending = false;

  /** @param cpus processors of the machine */
  constructor(
    settings: ConntrackSettings,
    private readonly log: Logger,
    private readonly files: SystemFiles = systemFiles(),
    cpus = countCPUs(files),
  ) {
    const max = conntrackMax(settings, cpus);
    this.left = new Map([
      ...(max === undefined
        ? []
        : [
            this.job('conntrack.maxPerCore', () => {
              this.setMax(max);
            }),
          ]),
      ...this.timeout(
        'conntrack.tcpEstablishedTimeout',
        sysctl.tcpEstablished,
        settings.tcpEstablishedTimeoutMs,
      ),
      ...this.timeout('conntrack.tcpCloseWaitTimeout', sysctl.tcpCloseWait, settings.tcpCloseWaitTimeoutMs),
      ...(settings.tcpBeLiberal
        ? [
            this.job(liberalField, () => {
              this.set(sysctlPath(sysctl.tcpBeLiberal), 1);
            }),
          ]
        : []),
      ...this.timeout('conntrack.udpTimeout', sysctl.udp, settings.udpTimeoutMs),
      ...this.timeout('conntrack.udpStreamTimeout', sysctl.udpStream, settings.udpStreamTimeoutMs),
    ]);
  }

  /**
   * Makes the settings that are not made yet. What can't be made is told once, with the path and what to do, and not
   * tried again. May be called as often as one likes.
   */
  apply(): TuningState {
    for (const [field, make] of this.left) {
      try {
        make();
      } catch (error) {
        if (!(error instanceof SettingError)) throw error;
        if (error.code === 'ERR_SETTING_MISSING' && !this.isLoaded()) {
          this.reportPending();
          return 'pending';
        }
        this.log.warn('Leaving conntrack setting unchanged', {
          path: error.path,
          wanted: error.wanted,
          present: error.present,
          problem: error.hint,
          orElse: `${field}: ${field === liberalField ? 'false' : '0'} leaves it alone`,
        });
      }
      this.left.delete(field);
    }
    return 'done';
  }

  private isLoaded(): boolean {
    return this.files.exists(modulePath) || this.files.exists(sysctlPath(sysctl.max));
  }

  private reportPending(): void {
    if (this.reportedPending) return;
    this.reportedPending = true;
    this.log.warn(
      'The kernel has not loaded connection tracking (module nf_conntrack); its settings are made when it appears',
      { settings: [...this.left.keys()] },
    );
  }

  private job(field: string, make: () => void): [string, () => void] {
    return [field, make];
  }

  private timeout(field: string, name: string, milliseconds: number): [string, () => void][] {
    if (milliseconds <= 0) return [];
    // The kernel counts in seconds, and 0 would forget connections at once.
    const seconds = Math.max(1, Math.floor(milliseconds / 1000));
    return [
      this.job(field, () => {
        this.set(sysctlPath(name), seconds);
      }),
    ];
  }

  private set(path: string, value: number): void {
    const { changed, before } = writeSetting(path, value, this.files);
    if (changed) this.log.info('Set conntrack setting', { path, before, now: value });
  }

  private setMax(wanted: number): void {
    const path = sysctlPath(sysctl.max);
    const present = this.number(path);
    if (present !== undefined && present > wanted) {
      this.log.info('nf_conntrack_max is already higher than configured, leaving it', {
        path,
        present,
        configured: wanted,
      });
    } else {
      this.set(path, wanted);
    }
    // A table with too few buckets is slow; one with more costs only memory that somebody chose to give.
    const buckets = Math.floor(wanted / entriesPerBucket);
    if ((this.number(hashSizePath) ?? 0) < buckets) this.set(hashSizePath, buckets);
  }

  private number(path: string): number | undefined {
    try {
      const value = Number(this.files.read(path));
      return Number.isFinite(value) ? value : undefined;
    } catch {
      return undefined;
    }
  }
}
