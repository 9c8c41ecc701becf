/** Opens the dataplanes of a mode, one per family, with what watches over them. */
import type { IpvsConfig } from '../config/config.js';
import type { ApplyReport, Dataplane, DataplaneOptions } from '../backends/backend.js';
import { ensureCounters } from '../backends/iptables/counters.js';
import { IptablesFamily, type RuleStatistics } from '../backends/iptables/family.js';
import { ForeignChanges } from '../backends/iptables/watch/foreign-changes.js';
import { LegacyWatch } from '../backends/iptables/watch/legacy-watch.js';
import { RuleWatch } from '../backends/iptables/watch/watch.js';
import { WatchedFamily } from '../backends/iptables/watch/watched-family.js';
import { IpvsFamily } from '../backends/ipvs/family.js';
import { tableName as ipvsTableName } from '../backends/ipvs/table/names.js';
import { KernelServiceInterface } from '../backends/ipvs/service-interface.js';
import { IpvsWatch } from '../backends/ipvs/watch.js';
import { NftablesFamily } from '../backends/nftables/family.js';
import { maps, tableName } from '../backends/nftables/layout/names.js';
import { TableWatch, WatchedDataplane } from '../backends/engine/table-watch.js';
import { kubeProxyServers, type Running as Keeps } from '../leftovers/index.js';
import type { Logger } from '../log/logger.js';
import type { IptablesMetrics } from '../metrics/metrics.js';
import { parseCidr } from '../model/addresses/addresses.js';
import type { IPFamily } from '../model/types.js';
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { systemFiles, sysctlPath } from '../node/system/index.js';
import { openIpvs, schedulerOf } from './ipvs-settings.js';
import type { BuiltMode } from './mode.js';
import { openNftables } from './preflight.js';

export interface BackendOptions {
  readonly mode: BuiltMode;
  readonly families: readonly IPFamily[];
  readonly dataplaneOptions: (family: IPFamily) => DataplaneOptions;
  /** Mode ipvs only. */
  readonly ipvs: IpvsConfig;
  /** Addresses of this node's interfaces, without those of Services. */
  readonly localAddresses: (family: IPFamily) => readonly string[];
  /** Another program may have changed what is ours, unnoticed: it has to be looked at. */
  readonly onMissed: (family: IPFamily) => void;
  /** Another program changed what is ours: everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** Another program touched some elements of ours; they were put right, so many seconds after it was noticed. */
  readonly onRepaired: (family: IPFamily, report: ApplyReport, seconds: number) => void;
  /** What another program, named `by`, changed will be put right after so many milliseconds. */
  readonly onPutOff: (by: string, delayMs: number) => void;
  readonly metrics: IptablesMetrics;
  readonly log: Logger;
}

export interface Backend {
  readonly dataplanes: readonly Dataplane[];
  /** What must stay when leftovers of other modes are removed. Known once all families are programmed. */
  keeps(): Keeps;
  /** Rules after the last sync and written by it, by table; undefined: the mode does not count them. */
  ruleStatistics(family: IPFamily): RuleStatistics | undefined;
  /** Ends the watching; what is in the kernel stays. Dataplanes are closed by themselves. */
  stopWatching(): Promise<void>;
}

export function openBackend(options: BackendOptions): Backend {
  switch (options.mode) {
    case 'iptables':
      return openIptablesBackend(options);
    case 'ipvs':
      return openIpvsBackend(options);
    case 'nftables':
      return openNftablesBackend(options);
  }
}

function openIpvsBackend(options: BackendOptions): Backend {
  const { families, dataplaneOptions, ipvs, localAddresses } = options;
  const { onMissed, onForeignChange, onRepaired, onPutOff } = options;
  const log = options.log.named('watch');
  const excluded = ipvs.excludeCIDRs.map(parseCidr).filter((cidr) => cidr !== undefined);
  const programs = families.map((family) => {
    const side = {
      nft: openNftables(),
      ipvs: openIpvs(),
      observer: openIpvs(),
      addresses: new KernelServiceInterface(RouteConnection.open(), family === 'IPv4' ? 'ip' : 'ip6'),
    };
    const dataplane = new IpvsFamily(side, dataplaneOptions(family), {
      scheduler: schedulerOf(ipvs),
      excludeCIDRs: excluded.filter((cidr) => cidr.family === family).map(({ cidr }) => cidr),
      localAddresses: localAddresses(family),
      formerServers: kubeProxyServers,
    });
    return { connection: side.nft, dataplane };
  });
  const observer = openNftables();
  const watch = new TableWatch({
    table: ipvsTableName,
    families,
    connections: programs.map(({ connection }) => connection),
    generation: () => observer.getGeneration().id,
    onMissed,
    onRepaired,
    onForeignChange,
    onPutOff,
    log,
  });
  const ipvsWatch = new IpvsWatch({
    families: programs.map(({ dataplane }) => dataplane),
    onForeignChange,
    onPutOff,
    log,
  });
  return {
    dataplanes: programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch)),
    keeps: () => ({ mode: 'ipvs' }),
    ruleStatistics: () => undefined,
    stopWatching: async () => {
      await Promise.all([watch.close(), ipvsWatch.close()]);
      observer.close();
    },
  };
}

function openNftablesBackend(options: BackendOptions): Backend {
  const { families, dataplaneOptions, onMissed, onForeignChange, onRepaired, onPutOff, log } = options;
  const programs = families.map((family) => {
    const connection = openNftables();
    return { connection, dataplane: new NftablesFamily(connection, dataplaneOptions(family)) };
  });
  const observer = openNftables();
  const watch = new TableWatch({
    table: tableName,
    learnedSet: maps.affinity,
    families,
    connections: programs.map(({ connection }) => connection),
    generation: () => observer.getGeneration().id,
    onMissed,
    repair: (family, touched) =>
      programs.find(({ dataplane }) => dataplane.family === family)?.dataplane.repair(touched),
    onRepaired,
    onForeignChange,
    onPutOff,
    log: log.named('watch'),
  });
  return {
    dataplanes: programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch)),
    keeps: () => ({ mode: 'nftables' }),
    ruleStatistics: () => undefined,
    stopWatching: async () => {
      await watch.close();
      observer.close();
    },
  };
}

function openIptablesBackend(options: BackendOptions): Backend {
  const { families, dataplaneOptions, onForeignChange, onPutOff, metrics, log } = options;
  const dropInvalid = !tcpIsLiberal();
  const watchLog = log.named('watch');
  const foreign = new ForeignChanges({ onForeignChange, onPutOff, log: watchLog });
  const programs = families.map(
    (family) =>
      new IptablesFamily({
        ...dataplaneOptions(family),
        dropInvalid,
        log: log.named('iptables'),
        ensureCounters,
        onWritten: ({ rules, written }) => {
          for (const table of ['nat', 'filter'] as const) {
            metrics.rules.set({ table, ip_family: family }, rules[table]);
            metrics.rulesWritten.set({ table, ip_family: family }, written[table]);
          }
        },
        onPartialFailure: () => {
          metrics.partialRestoreFailures.inc({ ip_family: family });
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
      mode: 'iptables',
      variant: programs.some(({ tool }) => tool?.kind === 'legacy') ? 'legacy' : 'nft',
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
