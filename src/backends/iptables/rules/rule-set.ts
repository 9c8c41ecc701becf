/**
 * All rules as they are wanted: what each service port puts into the prefix trees and chains, and the fixed ones. Knows
 * nothing of the kernel beyond what chain-store.ts remembers of it.
 */
import type { Protocol, ServicePort } from '../../../model/types.js';
import { ChainStore } from './chain-store.js';
import {
  noRules,
  desiredRules,
  hairpinRule,
  type DesiredRules,
  type RuleContext,
  type TreeName,
} from './desired-rules.js';
import { AddressKeys, portKey, PortKeys, sourceKey } from './keys.js';
import {
  canaryTables,
  forwardRules,
  healthCheckRule,
  markMasqueradeRules,
  nodePortRules,
  postroutingRules,
  type Abilities,
  type IptablesOptions,
  type PortRange,
} from './layout.js';
import { chainPrefixes, chains, releasedChain, type TableName } from './names.js';
import { formerRejections, meetsTranslated } from './refusals.js';
import { RecentlyReleased } from '../released.js';
import type { SavedTable } from '../tool/saved.js';
import { ChainTree, type KeySpace } from './tree.js';

const owner = 'kube-proxy';
/** Of entries that were found in the kernel and that no service port wants. */
const formerOwner = 'former';
const protocols: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
const highestPort = 65535;

/** The trees of table filter; the others are in nat. */
const filterTrees: ReadonlySet<TreeName> = new Set([
  'refused',
  'refusedExternal',
  'refusedNodePorts',
  'firewall',
]);

/** An entry of table filter that is no longer wanted. */
interface LeavingEntry {
  readonly tree: TreeName;
  readonly key: string;
  readonly owner: string;
  /** When table nat was written (performance.now()); undefined: not yet. */
  since: number | undefined;
}

export class RuleSet {
  readonly nat = new ChainStore();
  readonly filter = new ChainStore();
  readonly mangle = new ChainStore();
  private readonly trees: Readonly<Record<TreeName, ChainTree>>;
  private readonly healthChecks = new ChainTree(new PortKeys(chainPrefixes.local));
  private nodePortAddresses: readonly string[] = [];
  private healthCheckPorts: ReadonlySet<number> = new Set();
  private readonly hairpins: ChainTree;
  private readonly hairpinUse = new Map<string, number>();
  private readonly ports = new Map<string, ServicePort>();
  /** What the rules of service ports depend on. */
  readonly context: RuleContext;
  readonly released: RecentlyReleased;
  /** Entries of table filter that stay while packets may be under way that met table nat as it was. */
  private leaving: LeavingEntry[] = [];
  /** Entries of table filter that go as soon as table nat is written. */
  private leavingAtOnce: LeavingEntry[] = [];

  constructor(
    private readonly options: IptablesOptions,
    private readonly abilities: Abilities,
  ) {
    const { family } = options;
    this.context = { ...options, reject: abilities.reject };
    this.released = new RecentlyReleased(family);
    const byAddress = (label: string): KeySpace => new AddressKeys(family, label);
    this.trees = {
      services: new ChainTree(byAddress(chainPrefixes.cluster)),
      nodePorts: new ChainTree(new PortKeys(chainPrefixes.cluster)),
      refused: new ChainTree(byAddress(chainPrefixes.cluster)),
      refusedExternal: new ChainTree(byAddress(chainPrefixes.external)),
      refusedNodePorts: new ChainTree(new PortKeys(chainPrefixes.external)),
      firewall: new ChainTree(byAddress(chainPrefixes.firewall)),
    };
    this.hairpins = new ChainTree(new AddressKeys(family, chainPrefixes.endpoint, '-s'));
    this.nat.set(chains.markMasquerade, markMasqueradeRules(options));
    this.filter.set(chains.forward, forwardRules(options, abilities));
    for (const table of canaryTables) this.store(table).set(chains.canary, []);
  }

  store(table: TableName): ChainStore {
    return this[table];
  }

  get(key: string): ServicePort | undefined {
    return this.ports.get(key);
  }

  keys(): Iterable<string> {
    return this.ports.keys();
  }

  /** Since when the first of the entries that wait is no longer wanted (performance.now()); undefined: none waits. */
  get leavingSince(): number | undefined {
    return this.leaving[0]?.since;
  }

  /** @param next undefined: the service port is gone */
  change(key: string, next: ServicePort | undefined): void {
    const before = this.ports.get(key);
    const old = before === undefined ? noRules : desiredRules(before, this.context);
    const now = next === undefined ? noRules : desiredRules(next, this.context);
    if (next === undefined) this.ports.delete(key);
    else this.ports.set(key, next);
    this.changeChains(old, now);
    this.changeEntries(key, next, old, now);
    if (!this.abilities.bpf) this.changeHairpins(old, now);
    if (before !== undefined) this.released.change(before, next);
  }

  setNodePortAddresses(addresses: readonly string[]): void {
    this.nodePortAddresses = addresses;
  }

  setHealthCheckPorts(ports: Iterable<number>): void {
    const now = new Set(ports);
    const before = this.healthCheckPorts;
    for (const port of before) if (!now.has(port)) this.healthChecks.delete(portKey('TCP', port), owner);
    for (const port of now) {
      if (!before.has(port))
        this.healthChecks.set({ key: portKey('TCP', port), owner, rules: [healthCheckRule(port)] });
    }
    this.healthCheckPorts = now;
  }

  /** Brings nat up to date. */
  renderNat(): void {
    const { nat, trees, options, abilities } = this;
    const services = this.flush(trees.services, nat);
    const nodePorts = this.flush(trees.nodePorts, nat);
    const hairpins = this.flush(this.hairpins, nat);
    const released = this.released.rules();
    if (released.length > 0) nat.set(releasedChain, released);
    else if (nat.has(releasedChain)) nat.delete(releasedChain);
    nat.set(chains.nodePorts, nodePorts);
    nat.set(chains.services, [
      ...services,
      ...nodePortRules(options, this.nodePortAddresses, this.nodePortRanges()),
    ]);
    nat.set(chains.postrouting, postroutingRules(options, abilities, hairpins));
  }

  /** Brings filter up to date, but for what goes: see release(). */
  renderFilter(): void {
    const { filter, trees } = this;
    filter.set(chains.services, this.flush(trees.refused, filter));
    filter.set(chains.externalServices, [
      ...this.flush(trees.refusedExternal, filter),
      ...this.flush(trees.refusedNodePorts, filter),
    ]);
    filter.set(chains.proxyFirewall, this.flush(trees.firewall, filter));
    filter.set(chains.nodePorts, this.flush(this.healthChecks, filter));
  }

  /** Table nat is in the kernel as it was rendered: no new packet needs what leaves table filter. */
  natWritten(now: number): void {
    for (const entry of this.leaving) entry.since ??= now;
  }

  /**
   * Takes out of filter what refuses endpoints of its own Service: translated packets meet it, too.
   * @returns whether there was anything
   */
  releaseAtOnce(): boolean {
    const any = this.leavingAtOnce.length > 0;
    this.takeOut(this.leavingAtOnce);
    this.leavingAtOnce = [];
    return any;
  }

  /** Takes out of filter what has not been wanted since `before` (performance.now()). */
  release(before: number): void {
    const isDue = ({ since }: LeavingEntry): boolean => since !== undefined && since <= before;
    this.takeOut(this.leaving.filter(isDue));
    this.leaving = this.leaving.filter((entry) => !isDue(entry));
  }

  /**
   * What table filter was found to refuse stays until table nat is written and a little longer, whoever wrote it.
   * @param found table filter
   */
  keepFormerRejections(found: SavedTable): void {
    for (const { tree, key, rule } of formerRejections(found)) {
      if (!this.trees[tree].has(key)) {
        this.trees[tree].set({ key, owner: formerOwner, rules: [rule] });
        this.leaving.push({ tree, key, owner: formerOwner, since: undefined });
      }
    }
  }

  private takeOut(entries: readonly LeavingEntry[]): void {
    for (const { tree, key, owner: by } of entries) this.trees[tree].delete(key, by);
  }

  private changeChains(old: DesiredRules, now: DesiredRules): void {
    for (const [name, rules] of now.chains) this.nat.set(name, rules);
    for (const name of old.chains.keys()) if (!now.chains.has(name)) this.nat.delete(name);
  }

  private changeEntries(
    key: string,
    next: ServicePort | undefined,
    old: DesiredRules,
    now: DesiredRules,
  ): void {
    const kept = new Set(now.entries.map((entry) => `${entry.tree} ${entry.key}`));
    for (const entry of old.entries) {
      if (kept.has(`${entry.tree} ${entry.key}`)) continue;
      if (!filterTrees.has(entry.tree)) {
        this.trees[entry.tree].delete(entry.key, key);
        continue;
      }
      const list = next !== undefined && meetsTranslated(entry, next) ? this.leavingAtOnce : this.leaving;
      list.push({ tree: entry.tree, key: entry.key, owner: key, since: undefined });
    }
    for (const entry of now.entries)
      this.trees[entry.tree].set({ key: entry.key, owner: key, rules: entry.rules });
    // What left and came back before it was gone.
    if (this.leaving.length > 0)
      this.leaving = this.leaving.filter(
        (entry) => entry.owner !== key || !kept.has(`${entry.tree} ${entry.key}`),
      );
  }

  private changeHairpins(old: DesiredRules, now: DesiredRules): void {
    for (const ip of now.hairpins) if (!old.hairpins.has(ip)) this.useHairpin(ip, 1);
    for (const ip of old.hairpins) if (!now.hairpins.has(ip)) this.useHairpin(ip, -1);
  }

  private useHairpin(ip: string, by: 1 | -1): void {
    const before = this.hairpinUse.get(ip) ?? 0;
    const uses = before + by;
    const key = sourceKey(ip);
    if (uses === 0) {
      this.hairpinUse.delete(ip);
      this.hairpins.delete(key, owner);
      return;
    }
    this.hairpinUse.set(ip, uses);
    if (before === 0) this.hairpins.set({ key, owner, rules: [hairpinRule(this.options.family, ip)] });
  }

  private flush(tree: ChainTree, store: ChainStore): readonly string[] {
    return tree.flush((name, rules) => {
      if (rules === undefined) store.delete(name);
      else store.set(name, rules);
    });
  }

  private nodePortRanges(): PortRange[] {
    const ranges: PortRange[] = [];
    for (const protocol of protocols) {
      const from = portKey(protocol, 0);
      const [first, last] = this.trees.nodePorts.bounds(from, portKey(protocol, highestPort));
      if (first === undefined || last === undefined) continue;
      const [low, high] = [first, last].map((key) => parseInt(key.slice(1), 4));
      ranges.push({ protocol, low: low ?? 0, high: high ?? 0 });
    }
    return ranges;
  }
}
