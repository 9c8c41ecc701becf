/**
 * What may become of a packet while one change goes in: what the objects before it ask for, or those after it. Nothing in between:
 * an address that is served before and after is served all the time, and nobody is refused, dropped or let through whom neither
 * state refuses, drops or lets through.
 */
import {
  destinationKey,
  type Destination,
  type Expectation,
  type Expected,
  type Source,
} from '../soak/expectation.js';
import type { Outcome } from '../soak/walk.js';
import { expectedInWords } from '../soak/comparison.js';

export class Permission {
  private readonly expected: readonly Expected[];
  /** Endpoints that are on this node, or nobody knows where, before and after. */
  private readonly here: readonly string[];

  /** @param inMode what a mode makes of an expectation, where that is another thing */
  constructor(
    to: Destination,
    private readonly from: Source,
    states: readonly Expectation[],
    inMode: (expected: Expected, isOwned: boolean) => readonly Expected[] = (expected) => [expected],
  ) {
    const key = destinationKey(to);
    this.expected = states.flatMap((state) => inMode(state.of(to, from), state.owners.has(key)));
    const [first = [], ...others] = states.map((state) =>
      (state.owners.get(destinationKey(to))?.endpoints ?? [])
        .filter(({ maybeHere }) => maybeHere)
        .map(({ target }) => target),
    );
    this.here = first.filter((target) => others.every((list) => list.includes(target)));
  }

  permits(outcome: Outcome): boolean {
    if (outcome.kind !== 'translated') {
      return this.expected.some(({ kind }) => kind === outcome.kind);
    }
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

/** Endpoints that may ask themselves. */
export function selves(to: Destination, states: readonly Expectation[]): Source[] {
  const addresses = states.flatMap((state) =>
    (state.owners.get(destinationKey(to))?.endpoints ?? [])
      .filter(({ maybeHere }) => maybeHere)
      .map(({ target }) => target.split(' ')[0] ?? ''),
  );
  return [...new Set(addresses)].map((address) => ({ address, ownNode: false }));
}
