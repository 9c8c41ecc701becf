/** Opens the dataplanes of a mode, one per family, with what watches over them. */
import type { ApplyReport, Dataplane, DataplaneOptions } from '../dataplane/dataplane.js';
import { NftablesFamily } from '../dataplane/nftables/family.js';
import { TableWatch, WatchedDataplane } from '../dataplane/nftables/watch.js';
import type { Logger } from '../log/logger.js';
import type { IPFamily } from '../model/types.js';
import type { BuiltMode } from './mode.js';
import { openNftables } from './preflight.js';

export interface BackendOptions {
  readonly mode: BuiltMode;
  readonly families: readonly IPFamily[];
  readonly dataplaneOptions: (family: IPFamily) => DataplaneOptions;
  /** Another program changed what is ours: everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** Another program touched some elements of ours; they were put right, so many seconds after it was noticed. */
  readonly onRepaired: (family: IPFamily, report: ApplyReport, seconds: number) => void;
  readonly log: Logger;
}

export interface Backend {
  readonly dataplanes: readonly Dataplane[];
  /** Ends the watching; what is in the kernel stays. Dataplanes are closed by themselves. */
  stopWatching(): Promise<void>;
}

export function openBackend(options: BackendOptions): Backend {
  return openNftablesBackend(options);
}

function openNftablesBackend(options: BackendOptions): Backend {
  const { families, dataplaneOptions, onForeignChange, onRepaired, log } = options;
  const programs = families.map((family) => {
    const connection = openNftables();
    return { connection, dataplane: new NftablesFamily(connection, dataplaneOptions(family)) };
  });
  const observer = openNftables();
  const watch = new TableWatch({
    families,
    ownPortIds: new Set(programs.map(({ connection }) => connection.portId)),
    generation: () => observer.getGeneration().id,
    repair: (family, touched) =>
      programs.find(({ dataplane }) => dataplane.family === family)?.dataplane.repair(touched),
    onRepaired,
    onForeignChange,
    log: log.named('watch'),
  });
  return {
    dataplanes: programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch)),
    stopWatching: async () => {
      await watch.close();
      observer.close();
    },
  };
}
