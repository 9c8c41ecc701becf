/**
 * What may become of a packet while one change goes in: what the objects before it ask for, or those after it. An address that is
 * served before and after is served all the time, and by nobody else; nobody is refused whom neither state refuses, and nobody
 * let through whom neither lets through.
 *
 * Some things are nobody's loss. To be dropped is as good as to be rejected. An address that no Service has before or after may
 * refuse a moment longer or earlier. When an address comes, goes or moves, the endpoints of either owner will do, also those that it
 * has had a moment ago or gets now. When policies or source ranges change, a packet that has met the state before may come to any
 * endpoint after. And a packet that meets the source ranges of both owners may be kept out,
 * or be served by the one after it has passed those of the other.
 */
import {
  destinationKey,
  onThisNode,
  type Destination,
  type Expectation,
  type Expected,
  type ServicePort,
  type Source,
} from '../soak/expectation.js';
import type { Outcome } from '../soak/walk.js';
import { expectedInWords } from '../soak/comparison.js';

export class Permission {
  private readonly expected: readonly Expected[];
  private readonly isRefused: boolean;
  private readonly passes: boolean;
  /** The address changes hands. */
  readonly moves: boolean;
  /** Endpoints of the one owner while the other one has the address. */
  private readonly others = new Set<string>();
  /** All endpoints of an owner that is new, or whose policies or source ranges change: for a packet that meets both states. */
  private readonly between = new Set<string>();
  /** Endpoints that are on this node, or nobody knows where, before and after. */
  private readonly here: readonly string[];

  /**
   * @param states before and after the change
   * @param recent those before, as long as something of them may be in the kernel
   * @param passes packets to addresses that nobody serves may pass: in a mode that leaves them to others
   */
  constructor(
    to: Destination,
    private readonly from: Source,
    states: readonly Expectation[],
    recent: readonly Expectation[] = [],
    passes: (isOwned: boolean) => boolean = () => false,
  ) {
    const key = destinationKey(to);
    this.expected = states.map((state) => state.of(to, from));
    const kinds = new Set(this.expected.map(({ kind }) => kind));
    const isNobodys = states.some((state) => !state.owners.has(key));
    const owners = states.map((state) => state.owners.get(key));
    this.moves = owners.some((owner) => !isSame(owners[0], owner));
    const hasRanges = owners.some((owner) => owner?.service.spec.loadBalancerSourceRanges !== undefined);
    this.isRefused = isNobodys || (this.moves && hasRanges) || kinds.has('dropped') || kinds.has('rejected');
    this.passes =
      kinds.has('passed') ||
      states.some((state, i) => this.expected[i]?.kind !== 'translated' && passes(state.owners.has(key)));
    const strict = new Set(states.filter((_, i) => this.expected[i]?.kind === 'translated'));
    for (const state of this.moves ? [...recent, ...states] : []) {
      for (const port of state.ports) {
        if (
          (strict.has(state) && state.owners.get(key) === port) ||
          !owners.some((owner) => isSame(owner, port))
        )
          continue;
        for (const target of [...state.everywhere(port), ...onThisNode(port)]) this.others.add(target);
      }
    }
    if (this.moves || owners.some((owner) => !isAlike(owners[0], owner)))
      states.forEach((state, i) => {
        const owner = owners[i];
        if (owner === undefined) return;
        for (const target of [...state.everywhere(owner), ...onThisNode(owner)]) this.between.add(target);
      });
    const [first = [], ...more] = states.map((state) => maybeHere(state, key));
    this.here = first.filter((target) => more.every((list) => list.includes(target)));
  }

  /** @param isMixed the packet has met the state before and the state after */
  permits(outcome: Outcome, isMixed = false): boolean {
    if (outcome.kind === 'passed') return this.passes;
    if (outcome.kind !== 'translated') return this.isRefused;
    if (this.others.has(outcome.to) || (isMixed && this.between.has(outcome.to))) return true;
    const translations = this.expected.filter((one) => one.kind === 'translated');
    if (!translations.some(({ endpoints }) => endpoints.includes(outcome.to))) return false;
    // A pod that reaches itself would get its own address as that of its client, and answer past the kernel.
    if (outcome.to.split(' ')[0] === this.from.address)
      return outcome.masqueraded || !this.here.includes(outcome.to);
    return translations.some(({ masqueraded }) => masqueraded === outcome.masqueraded);
  }

  inWords(): string {
    return [...new Set(this.expected.map(expectedInWords))].join(', or ');
  }
}

function isSame(a: ServicePort | undefined, b: ServicePort | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.portName === b.portName &&
    a.service.metadata.name === b.service.metadata.name &&
    a.service.metadata.namespace === b.service.metadata.namespace
  );
}

/** The same policies and source ranges. */
function isAlike(a: ServicePort | undefined, b: ServicePort | undefined): boolean {
  const text = (port: ServicePort | undefined): string => {
    const { internalTrafficPolicy, externalTrafficPolicy, loadBalancerSourceRanges } =
      port?.service.spec ?? {};
    return JSON.stringify([internalTrafficPolicy, externalTrafficPolicy, loadBalancerSourceRanges]);
  };
  return text(a) === text(b);
}

function maybeHere(state: Expectation, key: string): readonly string[] {
  const endpoints = state.owners.get(key)?.endpoints ?? [];
  return endpoints.filter((endpoint) => endpoint.maybeHere).map(({ target }) => target);
}

/** Endpoints that may ask themselves. */
export function selves(to: Destination, states: readonly Expectation[]): Source[] {
  const key = destinationKey(to);
  const addresses = states
    .flatMap((state) => maybeHere(state, key))
    .map((target) => target.split(' ')[0] ?? '');
  return [...new Set(addresses)].map((address) => ({ address, ownNode: false }));
}
