/** Mode iptables: chains with upstream's names, by way of iptables-restore of either kind. docs/iptables.md */
import { systemFiles, sysctlPath } from '../../node/system/index.js';
import type { Backend, Mode, OpenOptions } from '../mode.js';
import { ensureCounters, readCounter } from './counters.js';
import { IptablesFamily } from './family.js';
import { owned } from './owned.js';
import { ForeignChanges } from './watch/foreign-changes.js';
import { LegacyWatch } from './watch/legacy-watch.js';
import { WatchedFamily } from './watch/watched-family.js';
import { RuleWatch } from './watch/watch.js';

const name = 'iptables';

export const iptables: Mode = {
  name,
  metrics: 'iptables',
  loopbackNodePorts: true,
  acceptsForHost: true,
  owned,
  // What tools there are is found out by the first sync, which is repeated until they are there.
  probe: () => undefined,
  readCounter,
  open,
};

function open(options: OpenOptions): Backend {
  const { families, dataplaneOptions, onForeignChange, onBackoff, onRulesWritten, onPartialFailure, log } =
    options;
  const dropInvalid = !tcpIsLiberal();
  const watchLog = log.named('watch');
  const foreign = new ForeignChanges({ onForeignChange, onBackoff, log: watchLog });
  const programs = families.map(
    (family) =>
      new IptablesFamily({
        ...dataplaneOptions(family),
        dropInvalid,
        log: log.named('iptables'),
        ensureCounters,
        onWritten: (statistics) => {
          onRulesWritten(family, statistics);
        },
        onPartialFailure: () => {
          onPartialFailure(family);
        },
        onDamage: (by) => {
          foreign.noticed([family], by);
        },
      }),
  );
  const watch = RuleWatch.open({ families: programs, foreign, onMissed: onForeignChange, log: watchLog });
  const legacyWatch = new LegacyWatch(programs);
  return {
    dataplanes: programs.map((program) => new WatchedFamily(program, foreign, watch)),
    keeps: () => ({
      mode: name,
      // `iptables` and `ip6tables` are two programs, and may be of different kinds.
      iptablesKinds: Object.fromEntries(
        programs.flatMap(({ family, tool }) =>
          tool === undefined ? [] : [[family, tool.kind === 'legacy' ? 'legacy' : 'nft'] as const],
        ),
      ),
    }),
    ruleStatistics: (family) => programs.find((program) => program.family === family)?.statistics,
    stopWatching: async () => {
      legacyWatch.close();
      foreign.close();
      await watch?.close();
    },
  };
}

/** Connection tracking takes TCP packets out of the window for valid: then it means no harm to call one invalid. */
function tcpIsLiberal(): boolean {
  try {
    return systemFiles().read(sysctlPath('net/netfilter/nf_conntrack_tcp_be_liberal')) !== '0';
  } catch {
    return false;
  }
}
