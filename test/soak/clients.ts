/** Who asks by packets: a process of the node, a pod of it, and two machines outside. */
import { nodeAddress } from '../conformance/addresses.js';
import type { Place } from '../conformance/addresses.js';
import type { ProbeResult } from '../conformance/protocol.js';
import type { Source } from './expectation.js';

export interface Client extends Source {
  /** The namespace that it asks from. */
  readonly place: Place;
}

export function clients(v6: boolean): readonly Client[] {
  const own = { place: 'alder', address: v6 ? nodeAddress.v6 : nodeAddress.v4, ownNode: true } as const;
  const pod = {
    place: 'local-clients',
    address: v6 ? 'fd61:0:0:1::20' : '10.61.1.20',
    ownNode: false,
  } as const;
  const outside = (address: string): Client => ({ place: 'outside', address, ownNode: false });
  const others = v6 ? ['2001:db8:f::7', '2001:db8:f::200'] : ['198.51.100.7', '198.51.100.200'];
  return [own, pod, ...others.map(outside)];
}

/** What came of a question, in words. */
export function describe(result: ProbeResult | undefined): string {
  switch (result?.kind) {
    case 'answered':
      return `answered by ${result.by} in ${result.place}, which saw ${result.saw}`;
    case 'failed':
      return `failed with ${result.message}`;
    default:
      return result?.kind ?? 'no result';
  }
}
