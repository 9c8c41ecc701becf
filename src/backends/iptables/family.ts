/**
 * iptables mode for one family: keeps tables nat and filter as the model wants them, by way of iptables-restore.
 * docs/iptables.md shows the layout; rule-set.ts is what is wanted, writer.ts brings it into the kernel.
 */
import { performance } from 'node:perf_hooks';
import { guarded } from '../../callbacks/guarded.js';
import { errorText, type Logger } from '../../log/logger.js';
import type { FamilyChanges, IPFamily, ReleasedAddress, ServicePort } from '../../model/types.js';
import { TableDamagedError, type ApplyReport, type Dataplane, type ProgrammingFailure } from '../backend.js';
import type { RuleStatistics } from '../mode.js';
import { isSupportedMachine } from '@kube-proxy-ts/netlink/xtables';
import { Turn } from '../../callbacks/turn.js';
import { AbilityTrials } from './tool/abilities.js';
import { notTried, OffendingServices } from './offending-services.js';
import { IptablesError } from './tool/errors.js';
import { jumps, type Abilities, type IptablesOptions } from './rules/layout.js';
import { KernelRules } from './tool/kernel-rules.js';
import { counters, type TableName } from './rules/names.js';
import { LegacyLook } from './watch/legacy-look.js';
import { NetlinkReader } from './tool/netlink-reader.js';
import { SavedReader, type ObservedRules, type TableReader } from './tool/reading.js';
import { releasedAddresses } from './released.js';
import { RuleSet } from './rules/rule-set.js';
import type { Saved } from './tool/saved.js';
import { IptablesTool, type ToolOptions } from './tool/tool.js';
import { nothingWritten, RuleWriter, type WriteResult } from './writer.js';

export interface IptablesFamilyOptions extends IptablesOptions {
  readonly log: Logger;
  /** How the tool is run. */
  readonly tool?: Omit<ToolOptions, 'family'>;
  /** Makes these counters in the kernel where they are not. @returns those that are there now */
  readonly ensureCounters?: (names: readonly string[]) => ReadonlySet<string>;
  /** Told after every change, and after a change of single service ports that failed. */
  readonly onWritten?: (statistics: RuleStatistics) => void;
  readonly onPartialFailure?: () => void;
  /**
   * The kernel no longer holds what was left there, or it is not known what it holds: resync() is due, after a pause that grows when
   * it happens again and again.
   * @param by who did it, as far as that is known
   */
  readonly onDamage: (by: string) => void;
}

/** Numbers of rules, for the metrics. */
/** As long as a packet may take from table nat to table filter. */
const packetMs = 100;

/**
 * The legacy kind replaces a whole table under a lock that all its users share. After each write they have the lock to themselves for
 * so many times as long, at most for a second.
 */
const restFactor = 3;
const longestRestMs = 1_000;

/** Service ports whose rules are put together at a time: all at once would take long. */
const portsPerPart = 50;

/** What is open once the tool is. */
interface OpenTools {
  readonly tool: IptablesTool;
  readonly trials: AbilityTrials;
  readonly writer: RuleWriter;
  readonly reader: TableReader;
  /** Of the nf_tables kind. */
  readonly kernel: KernelRules | undefined;
}

/** A service port that is to be changed, and what it was before. */
interface Step {
  readonly port: ServicePort;
  readonly before: ServicePort | undefined;
}

export class IptablesFamily implements Dataplane {
  readonly family: IPFamily;
  private tools: OpenTools | undefined;
  private abilities: Abilities | undefined;
  private rules: RuleSet | undefined;
  /** The kernel is as `rules` remembers it. */
  private resynced = false;
  private nodePortAddresses: readonly string[];
  private readonly healthCheckPorts = new Map<string, number>();
  private written = nothingWritten();
  /** Deletions that wait do so until then, too (performance.now()). */
  private restUntil = -Infinity;
  private readonly legacyLook: LegacyLook;
  private readonly offending = new OffendingServices();
  /** What failed at the last try, and was told. */
  private readonly failedLooks = new Set<string>();
  private queue: Promise<unknown> = Promise.resolve();
  private writeScheduled = false;
  private closed = false;

  constructor(private readonly options: IptablesFamilyOptions) {
    this.family = options.family;
    this.legacyLook = new LegacyLook(options.family);
    this.nodePortAddresses = options.nodePortAddresses === 'all' ? [] : options.nodePortAddresses;
  }

  /** The tool in use; undefined before the first resync(). */
  get tool(): IptablesTool | undefined {
    return this.tools?.tool;
  }

  get statistics(): RuleStatistics {
    return {
      rules: { nat: this.rules?.nat.rules ?? 0, filter: this.rules?.filter.rules ?? 0 },
      written: this.written.rulesWritten,
    };
  }

  resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const released: ReleasedAddress[] = [];
    return this.exclusively(async (written, failures) => {
      this.resynced = false;
      const tools = await this.open();
      const found = await tools.reader.read();
      const { saved } = found;
      this.abilities ??= await this.findAbilities(tools, saved);
      const all = [...wanted];
      const ports = await this.possible(all, failures);
      const rules = new RuleSet(this.options, this.abilities);
      await changeInTurns(rules, ports);
      const steps = ports.map((port) => ({ port, before: undefined }));
      released.push(...(await releasedAddresses(saved, all)));
      for (const address of released) rules.released.add(address);
      this.enterSettings(rules);
      await this.writeOrIsolate(rules, steps, written, failures, () =>
        this.complete(tools, rules, found, written),
      );
      this.rules = rules;
      this.resynced = true;
    }).then((report) => ({ ...report, released }));
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    return this.exclusively(async (written, failures) => {
      const { rules } = this;
      if (!this.resynced || rules === undefined)
        throw new TableDamagedError('what the kernel holds is not known: comparing all of it');
      const { writer } = await this.open();
      const ports = await this.possible(changes.upserted, failures);
      const steps = ports.map((port) => ({ port, before: rules.get(port.key) }));
      await changeInTurns(rules, ports, changes.removed);
      this.enterSettings(rules);
      // Until it is known what has gone in.
      this.resynced = false;
      try {
        await this.writeOrIsolate(rules, steps, written, failures, () =>
          writer.writeChanges(rules, performance.now() - packetMs, written),
        );
      } catch (error) {
        this.options.onPartialFailure?.();
        throw error;
      }
      this.resynced = true;
    });
  }

  get deferredDueAt(): number | undefined {
    const since = this.resynced ? this.rules?.leavingSince : undefined;
    return since === undefined ? undefined : Math.max(since + packetMs, this.restUntil);
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    return this.exclusively(async (written) => {
      if (!this.resynced || this.rules === undefined) return;
      const { writer } = await this.open();
      this.resynced = false;
      await writer.deleteDeferred(this.rules, now - packetMs, written);
      this.resynced = true;
    }, false);
  }

  /** Nothing: addresses that are not in use are not touched in this mode, as upstream. */
  setServiceCIDRs(): ApplyReport {
    return emptyReport;
  }

  setNodePortAddresses(addresses: readonly string[]): ApplyReport {
    if (this.options.nodePortAddresses === 'all') return emptyReport;
    this.nodePortAddresses = addresses;
    this.scheduleWrite();
    return emptyReport;
  }

  setHealthCheckPort(service: string, port: number | undefined): void {
    if (this.healthCheckPorts.get(service) === port) return;
    if (port === undefined) this.healthCheckPorts.delete(service);
    else this.healthCheckPorts.set(service, port);
    this.scheduleWrite();
  }

  maintain(): ApplyReport {
    if (this.rules?.released.isOver === true) this.scheduleWrite();
    return emptyReport;
  }

  /** Whether a change that the kernel tells of was made here. */
  isOwnChange(portId: number): boolean {
    return this.tools?.kernel?.portId === portId || this.tool?.isOwnRun(portId) === true;
  }

  /**
   * Do the kernel's own chains still lead to ours? For the nf_tables kind.
   * @param by who has just changed them
   */
  checkJumps(by: string): void {
    void this.look('look for the rules that lead to ours', ({ kernel }) => {
      const missing = kernel?.findJumps(jumps(this.options)).missing ?? [];
      if (missing.length > 0) this.options.onDamage(by);
    });
  }

  /** The same for the legacy kind, which does not tell of changes; nothing happens when nothing has changed. */
  async checkTables(): Promise<void> {
    if (this.tool?.kind !== 'legacy' || !isSupportedMachine()) return;
    await this.look('look at the tables', () => {
      const { rules, legacyLook } = this;
      if (rules === undefined || !legacyLook.isDue()) return;
      const lacking = legacyLook.lacking(rules, jumps(this.options));
      if (lacking !== undefined)
        this.options.onDamage(`unknown, iptables (legacy) tells no names (${lacking} was taken out)`);
    });
  }

  /** Somebody, `by`, added a rule to a chain of others: can the table still be read? For the nf_tables kind. */
  checkReadable(table: TableName, chain: string, by: string): void {
    void this.look('look at a rule of others', async ({ reader }) => {
      if (reader instanceof NetlinkReader) await reader.examine(table, chain, by);
    });
  }

  close(): void {
    this.closed = true;
    this.tools?.reader.close();
  }

  // ---- order of things

  /** One after the other: each sees what the one before has left. */
  private exclusively(
    work: (written: WriteResult, failures: ProgrammingFailure[]) => Promise<void>,
    isSync = true,
  ): Promise<ApplyReport> {
    const done = this.queue.then(async (): Promise<ApplyReport> => {
      const written = nothingWritten();
      const failures: ProgrammingFailure[] = [];
      const spent = this.tool?.spentMs ?? 0;
      const writing = this.tool?.writingMs ?? 0;
      await work(written, failures);
      const restMs = restAfter(this.tool, (this.tool?.writingMs ?? 0) - writing);
      if (restMs > 0) this.restUntil = performance.now() + restMs;
      // Looking after the rules is no sync.
      if (isSync || written.transactions > 0) {
        this.written = written;
        this.options.onWritten?.(this.statistics);
      }
      const { nat, filter, mangle } = written.rulesWritten;
      return {
        transactions: written.transactions,
        elementsAdded: nat + filter + mangle,
        elementsDeleted: written.rulesDeleted,
        kernelMs: (this.tool?.spentMs ?? 0) - spent,
        failures,
        restMs,
      };
    });
    this.queue = done.catch(() => undefined);
    return done;
  }

  /** What fails in it has left nobody knows what in the kernel. */
  private writeInBackground(
    what: string,
    work: (tools: OpenTools, written: WriteResult) => Promise<void>,
  ): void {
    void this.exclusively(async (written) => {
      if (this.closed || !this.resynced) return;
      await work(await this.open(), written);
    }, false).catch((error: unknown) => {
      this.options.log.warn(`Failed to ${what}, resyncing`, {
        family: this.family,
        problem: errorText(error),
      });
      this.resynced = false;
      if (!this.closed) this.options.onDamage('unknown, a write of ours failed');
    });
  }

  /** Between two writes. What can't be told is no damage. */
  private async look(what: string, work: (tools: OpenTools) => void | Promise<void>): Promise<void> {
    try {
      await this.exclusively(async () => {
        if (!this.closed && this.resynced) await work(await this.open());
      }, false);
      this.failedLooks.delete(what);
    } catch (error) {
      if (this.failedLooks.has(what)) return;
      this.failedLooks.add(what);
      this.options.log.warn(`Failed to ${what}; retrying quietly`, {
        family: this.family,
        problem: errorText(error),
      });
    }
  }

  /** A setting is written together with service ports that change at the same time, else by itself. */
  private scheduleWrite(): void {
    if (this.writeScheduled) return;
    this.writeScheduled = true;
    setImmediate(
      guarded('write settings', () => {
        this.writeScheduled = false;
        this.writeInBackground('write a setting', async ({ writer }, written) => {
          if (this.rules === undefined) return;
          this.enterSettings(this.rules);
          await writer.writeChanges(this.rules, performance.now() - packetMs, written);
        });
      }),
    );
  }

  private enterSettings(rules: RuleSet): void {
    rules.setNodePortAddresses(this.nodePortAddresses);
    rules.setHealthCheckPorts(this.healthCheckPorts.values());
  }

  // ---- what tool and kernel can do

  private async open(): Promise<OpenTools> {
    if (this.tools !== undefined) return this.tools;
    const { log, family } = this.options;
    const tool = await IptablesTool.open({ ...this.options.tool, family });
    log.info('Using iptables', { family, tool: tool.description });
    if (tool.differsFrom !== undefined)
      log.warn(
        "The kubelet of this node uses the other kind of iptables, which is not installed here: its rules and ours do not see each other. Install iptables-nft and iptables-legacy beside each other, as Debian's package iptables does",
        { family, kubelet: tool.differsFrom, ours: tool.kind },
      );
    const kernel = tool.kind === 'nf_tables' ? new KernelRules(family) : undefined;
    this.tools = {
      tool,
      trials: new AbilityTrials(tool),
      writer: new RuleWriter(tool, this.options, log),
      reader:
        kernel === undefined
          ? new SavedReader(tool, this.options)
          : new NetlinkReader(tool, kernel, this.options, log),
      kernel,
    };
    return this.tools;
  }

  private async findAbilities({ trials }: OpenTools, saved: Saved): Promise<Abilities> {
    const { log, family, ensureCounters } = this.options;
    const existing = ensureCounters?.(Object.values(counters)) ?? new Set<string>();
    const abilities = await trials.find(saved, existing);
    if (!abilities.bpf) {
      log.warn(
        'The kernel or iptables lacks the match bpf (module xt_bpf): pods of this node that reach themselves through a service take a rule each',
        { family },
      );
    }
    if (!abilities.reject) {
      log.warn(
        'The kernel or iptables lacks the target REJECT (module ipt_REJECT, ip6t_REJECT): packets to addresses without endpoints are dropped',
        { family },
      );
    }
    return abilities;
  }

  /** Leaves out, by name, what can't be programmed here. */
  private async possible(
    ports: readonly ServicePort[],
    failures: ProgrammingFailure[],
  ): Promise<readonly ServicePort[]> {
    const { trials } = await this.open();
    const possible: ServicePort[] = [];
    const turn = new Turn();
    for (const port of ports) {
      if (turn.isOver) await turn.next();
      const error = await trials.lacking(port);
      if (error === undefined) possible.push(port);
      else failures.push(failureOf(port, error));
    }
    return possible;
  }

  // ---- writing

  /**
   * Writes. When rules of single service ports are refused, these go back to what they were, are named, and the others are
   * written.
   */
  private async writeOrIsolate(
    rules: RuleSet,
    steps: readonly Step[],
    written: WriteResult,
    failures: ProgrammingFailure[],
    write: () => Promise<void>,
  ): Promise<void> {
    try {
      await write();
      return;
    } catch (error) {
      if (!(error instanceof IptablesError && error.code === 'IPTABLES_REJECTED')) throw error;
      const tools = await this.open();
      const { tool, reader } = tools;
      const suspects = steps.map(({ port }) => port);
      const { offending, untried } = await this.offending.find(tool, suspects, rules.context);
      if (offending.length + untried.length === 0) throw this.rules === rules ? damage(error) : error;
      const before = new Map(steps.map((step) => [step.port.key, step.before]));
      const leftOut = [...offending, ...untried.map((port) => ({ port, error: notTried() }))];
      for (const { port, error: reason } of leftOut) {
        rules.change(port.key, before.get(port.key));
        failures.push(failureOf(port, reason));
      }
      await this.complete(tools, rules, await reader.read(), written);
    }
  }

  /** Writes what is missing, and sees that it is there. */
  private async complete(
    { writer, reader }: OpenTools,
    rules: RuleSet,
    found: ObservedRules,
    written: WriteResult,
  ): Promise<void> {
    await writer.compareAndWrite(rules, found, written);
    reader.finish(found);
  }
}

function restAfter(tool: IptablesTool | undefined, writingMs: number): number {
  return tool?.kind === 'legacy' ? Math.min(restFactor * writingMs, longestRestMs) : 0;
}

/** Nothing is written meanwhile: nobody sees a part of it. */
async function changeInTurns(
  rules: RuleSet,
  ports: readonly ServicePort[],
  removed: readonly string[] = [],
): Promise<void> {
  const turn = new Turn();
  let at = 0;
  const end = async (): Promise<void> => {
    if (++at % portsPerPart !== 0) return;
    rules.renderNat();
    rules.renderFilter();
    if (turn.isOver) await turn.next();
  };
  for (const key of removed) {
    rules.change(key, undefined);
    await end();
  }
  for (const port of ports) {
    rules.change(port.key, port);
    await end();
  }
}

const emptyReport: ApplyReport = {
  transactions: 0,
  elementsAdded: 0,
  elementsDeleted: 0,
  kernelMs: 0,
  failures: [],
};

function failureOf({ name, key }: ServicePort, error: Error): ProgrammingFailure {
  return { servicePort: name, key, error };
}

/** A change that can't be made although its rules are fine: the chains that it builds on are not there. */
function damage(error: IptablesError): TableDamagedError {
  return new TableDamagedError(
    `our rules were changed by another program; comparing all of them: ${error.message}`,
    { cause: error },
  );
}
