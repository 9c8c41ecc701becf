/**
 * The contract of a mode: one way of making the kernel serve Services, as one module in a folder of its own. What the rest of
 * the program has to know of a mode it reads here, so that only configuration and docs name one. modes.ts has the list.
 */
import type { Config } from '../config/config.js';
import type { Logger } from '../log/logger.js';
import type { IPFamily } from '../model/types.js';
import type { ApplyReport, Dataplane, DataplaneOptions } from './backend.js';
import type { Owned } from './owned.js';

/** Rules by table of iptables. */
export type RuleCounts = Readonly<Record<'nat' | 'filter', number>>;

/** Rules in the kernel after the last sync, and written by it. */
export interface RuleStatistics {
  readonly rules: RuleCounts;
  readonly written: RuleCounts;
}

export interface OpenOptions {
  readonly config: Config;
  readonly families: readonly IPFamily[];
  readonly dataplaneOptions: (family: IPFamily) => DataplaneOptions;
  /** Addresses of this node's interfaces, without those of Services. */
  readonly localAddresses: (family: IPFamily) => readonly string[];
  /** Another program may have changed our rules, without a notification: they have to be checked. */
  readonly onMissed: (family: IPFamily) => void;
  /** Another program changed our rules: everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** Elements that another program had changed were repaired, so many seconds after it was noticed. */
  readonly onRepaired: (family: IPFamily, report: ApplyReport, seconds: number) => void;
  /** What another program, named `by`, changed will be repaired after so many milliseconds. */
  readonly onBackoff: (by: string, delayMs: number) => void;
  readonly onRulesWritten: (family: IPFamily, statistics: RuleStatistics) => void;
  /** The kernel or its tools rejected a sync of what changed, resyncing next. */
  readonly onPartialFailure: (family: IPFamily) => void;
  readonly log: Logger;
}

/** Which rules stay when leftovers of other modes are removed. */
export interface KeptRules {
  /** Mode.name */
  readonly mode: string;
  /** The kind of iptables whose tables the mode writes in a family; absent: it writes none there. */
  readonly iptablesKinds?: Readonly<Partial<Record<IPFamily, 'nft' | 'legacy'>>>;
}

/** The dataplanes of an open mode, one per family, and what watches over them. */
export interface Backend {
  readonly dataplanes: readonly Dataplane[];
  /** Known once all families are programmed. */
  keeps(): KeptRules;
  /** undefined: the mode does not count rules. */
  ruleStatistics(family: IPFamily): RuleStatistics | undefined;
  /** Ends the watches; what is in the kernel stays. Dataplanes are closed by themselves. */
  stopWatching(): Promise<void>;
}

export interface Mode {
  /** As `--proxy-mode` has it. */
  readonly name: string;
  /** Whose set of upstream's metrics it has. */
  readonly metrics: 'iptables' | 'ipvs' | 'nftables';
  /** Node ports can answer on loopback addresses. */
  readonly loopbackNodePorts: boolean;
  /** Its rules accept translated packets on behalf of the host's own chains that drop by default. */
  readonly acceptsForHost: boolean;
  /** An event on the Node at each start, for those who should think about another mode. */
  readonly deprecation?: { readonly reason: string; readonly note: string };
  readonly owned: Owned;
  /**
   * Why this machine can't run the mode; undefined: it can. Loads kernel modules that it needs, changes nothing else.
   * A FatalError with the exit code kernelUnsupported lets the automatic choice go on to the next mode.
   */
  probe(config: Config): Error | undefined;
  /** Settings of the kernel beside rules, each only if it is not so already. What can't be set is a warning. */
  prepare?(config: Config, log: Logger): void;
  /** Packets counted by an object of nfacct; undefined: there is none. */
  readonly readCounter?: (object: string) => number | undefined;
  /** Milliseconds between two calls of Dataplane.maintain(), at most; absent: as the caller likes. */
  housekeepingPeriodMs?(config: Config): number;
  /** @throws FatalError when the kernel can't be programmed */
  open(options: OpenOptions): Backend;
}
