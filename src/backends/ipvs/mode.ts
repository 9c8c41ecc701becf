/** Mode ipvs: virtual servers of IPVS, and beside them a table of nf_tables for what IPVS can't do. docs/ipvs.md */
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { parseCidr } from '../../model/addresses/addresses.js';
import type { Backend, Mode, OpenOptions } from '../mode.js';
import { TableWatch } from '../engine/table-watch.js';
import { WatchedDataplane } from '../engine/watched-dataplane.js';
import { openNftables } from '../nft/open.js';
import { IpvsFamily } from './family.js';
import { prepareIpvs } from './kernel-settings.js';
import { kubeProxyServers } from './leftovers/virtual-servers.js';
import { owned } from './owned.js';
import { ipvsProblem, openIpvs, schedulerOf } from './requirements.js';
import { KernelServiceInterface } from './service-interface.js';
import { tableName } from './table/names.js';
import { IpvsWatch } from './watch.js';

const name = 'ipvs';

export const ipvs: Mode = {
  name,
  metrics: 'ipvs',
  // IPVS does not see packets to loopback addresses.
  loopbackNodePorts: false,
  acceptsForHost: false,
  deprecation: {
    reason: 'IPVSDeprecation',
    note: 'Kubernetes has deprecated mode ipvs of kube-proxy and plans to remove it. kube-proxy-ts keeps it; mode nftables does more with less (docs/ipvs.md has the differences).',
  },
  owned,
  probe: ipvsProblem,
  prepare: prepareIpvs,
  // An endpoint that is drained is removed only then, and its Service's address with it.
  housekeepingPeriodMs: ({ syncPeriodMs }) => syncPeriodMs,
  open,
};

function open(options: OpenOptions): Backend {
  const { families, dataplaneOptions, localAddresses, onMissed, onForeignChange, onRepaired, onBackoff } =
    options;
  const settings = options.config.ipvs;
  const log = options.log.named('watch');
  const excluded = settings.excludeCIDRs.map(parseCidr).filter((cidr) => cidr !== undefined);
  const programs = families.map((family) => {
    const side = {
      nft: openNftables(),
      ipvs: openIpvs(),
      observer: openIpvs(),
      addresses: new KernelServiceInterface(RouteConnection.open(), family === 'IPv4' ? 'ip' : 'ip6'),
    };
    const dataplane = new IpvsFamily(side, dataplaneOptions(family), {
      scheduler: schedulerOf(settings),
      excludeCIDRs: excluded.filter((cidr) => cidr.family === family).map(({ cidr }) => cidr),
      localAddresses: localAddresses(family),
      formerServers: kubeProxyServers,
    });
    return { connection: side.nft, dataplane };
  });
  const observer = openNftables();
  const watch = new TableWatch({
    table: tableName,
    families,
    connections: programs.map(({ connection }) => connection),
    generation: () => observer.getGeneration().id,
    onMissed,
    onRepaired,
    onForeignChange,
    onBackoff,
    log,
  });
  const ipvsWatch = new IpvsWatch({
    families: programs.map(({ dataplane }) => dataplane),
    onForeignChange,
    onBackoff,
    log,
  });
  return {
    dataplanes: programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch)),
    keeps: () => ({ mode: name }),
    ruleStatistics: () => undefined,
    stopWatching: async () => {
      await Promise.all([watch.close(), ipvsWatch.close()]);
      observer.close();
    },
  };
}
