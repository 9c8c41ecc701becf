/** When rules are rejected: which service ports are they of? */
import { performance } from 'node:perf_hooks';
import type { ServicePort } from '../../model/types.js';
import { IptablesError } from './tool/errors.js';
import { desiredRules, type RuleContext } from './rules/desired-rules.js';
import type { IptablesTool } from './tool/tool.js';
import { endTrials, rejectionOf, type TrialRules } from './tool/trial.js';

/** A search holds up all changes of its family: after so long those that were not tried wait for the next attempt. */
const searchMs = 30_000;
/** A service port whose rules were rejected is not tried again before, unless its rules change. */
const rememberedMs = 60_000;

export interface Offending {
  readonly port: ServicePort;
  readonly error: Error;
}

export interface SearchResult {
  /** Each was rejected alone. */
  readonly offending: readonly Offending[];
  /** There was no time for these. */
  readonly untried: readonly ServicePort[];
}

interface Remembered {
  readonly rules: string;
  readonly error: Error;
  readonly until: number;
}

export class OffendingServices {
  private readonly remembered = new Map<string, Remembered>();

  constructor(private readonly options: { readonly searchMs?: number } = {}) {}

  /**
   * Tries the rules of all candidates, leaves out the one whose line the tool names (halves them where it names none), and goes
   * on until the rest is accepted. Nobody is called offending who was not rejected alone. The rules in force are not touched.
   * @returns nothing when it was not the rules of service ports that were rejected
   */
  async find(
    tool: IptablesTool,
    candidates: readonly ServicePort[],
    context: RuleContext,
  ): Promise<SearchResult> {
    const offending: Offending[] = [];
    const untried: ServicePort[] = [];
    const start = performance.now();
    const end = start + (this.options.searchMs ?? searchMs);
    const rulesOf = new Map(candidates.map((port) => [port, trialOf(port, context)]));
    const rejects = (ports: readonly ServicePort[]): Promise<IptablesError | undefined> =>
      rejectionOf(tool, together(ports.map((port) => rulesOf.get(port) ?? [])));
    const convict = (port: ServicePort, error: Error): void => {
      offending.push({ port, error });
      this.remembered.set(port.key, {
        rules: JSON.stringify(rulesOf.get(port)),
        error,
        until: performance.now() + rememberedMs,
      });
    };
    const search = async (among: readonly ServicePort[]): Promise<void> => {
      let ports = among;
      while (ports.length > 0) {
        if (performance.now() > end) {
          untried.push(...ports);
          return;
        }
        const error = await rejects(ports);
        if (error === undefined) return;
        const [only, other] = ports;
        if (only !== undefined && other === undefined) {
          convict(only, error);
          return;
        }
        const named = ports.find((port) => hasLine(rulesOf.get(port) ?? [], error.line));
        const alone = named === undefined ? undefined : await rejects([named]);
        if (named !== undefined && alone !== undefined) {
          convict(named, alone);
          ports = ports.filter((port) => port !== named);
          continue;
        }
        const middle = ports.length >> 1;
        await search(ports.slice(0, middle));
        ports = ports.slice(middle);
      }
    };
    const unknown: ServicePort[] = [];
    for (const port of candidates) {
      const known = this.remembered.get(port.key);
      if (known !== undefined && known.until > start && known.rules === JSON.stringify(rulesOf.get(port)))
        offending.push({ port, error: known.error });
      else {
        this.remembered.delete(port.key);
        unknown.push(port);
      }
    }
    try {
      // A tool that accepts nothing says nothing about anybody.
      if ((await rejects([])) !== undefined) return { offending: [], untried: [] };
      await search(unknown);
    } finally {
      await endTrials(tool);
    }
    return { offending, untried };
  }
}

/** What is said of a service port for whose trial there was no time. */
export function notTried(): Error {
  return new IptablesError(
    'IPTABLES_REJECTED',
    `rules written with its own were rejected, and there was no time to try them one by one (${searchMs / 1000} s): it is tried again`,
  );
}

/** The rules of a service port, without their ways to other chains. */
function trialOf(port: ServicePort, context: RuleContext): TrialRules {
  const nat: string[] = [];
  const filter: string[] = [];
  const { entries, chains } = desiredRules(port, context);
  for (const rules of chains.values()) nat.push(...rules);
  for (const { tree, rules } of entries)
    (tree === 'services' || tree === 'nodePorts' ? nat : filter).push(...rules);
  const alone = (rules: readonly string[]): string[] =>
    rules.map((rule) => rule.replace(/ ?-[gj] KUBE-\S+$/, '')).filter((rule) => rule !== '');
  return [
    ['nat', alone(nat)],
    ['filter', alone(filter)],
  ];
}

function together(all: readonly TrialRules[]): TrialRules {
  return (['nat', 'filter'] as const).map((table) => [
    table,
    all.flatMap((rules) => rules.flatMap(([name, lines]) => (name === table ? lines : []))),
  ]);
}

/** @param line of the tool's input */
function hasLine(rules: TrialRules, line: string | undefined): boolean {
  return line !== undefined && rules.some(([, lines]) => lines.some((rule) => line.endsWith(` ${rule}`)));
}
