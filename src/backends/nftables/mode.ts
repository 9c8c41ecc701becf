/** Mode nftables: two tables of nf_tables, over netlink. docs/nftables.md */
import type { Backend, Mode, OpenOptions } from '../mode.js';
import { TableWatch } from '../engine/table-watch.js';
import { WatchedDataplane } from '../engine/watched-dataplane.js';
import { openNftables } from '../nft/open.js';
import { NftablesFamily } from './family.js';
import { nftablesProblem } from './kernel/requirements.js';
import { maps, tableName } from './layout/names.js';
import { owned } from './owned.js';

const name = 'nftables';

export const nftables: Mode = {
  name,
  metrics: 'nftables',
  loopbackNodePorts: true,
  // A packet has to pass every base chain of its hook.
  acceptsForHost: false,
  owned,
  probe: nftablesProblem,
  open,
};

function open(options: OpenOptions): Backend {
  const { families, dataplaneOptions, onMissed, onForeignChange, onRepaired, onBackoff, log } = options;
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
    onBackoff,
    log: log.named('watch'),
  });
  return {
    dataplanes: programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch)),
    keeps: () => ({ mode: name }),
    ruleStatistics: () => undefined,
    stopWatching: async () => {
      await watch.close();
      observer.close();
    },
  };
}
