/** Which Services do not have addresses that they claim, from the contests that the model reports one by one. */
import type { AddressConflict, ServiceName } from '../model/types.js';
import type { InvalidObjects } from './invalid-objects.js';

/** Addresses that are named; more of one Service are counted. */
const maxNamed = 8;

interface Loser {
  readonly service: ServiceName;
  /** By address: who has it. */
  readonly lost: Map<string, string>;
}

export class AddressConflicts {
  private readonly losers = new Map<string, Loser>();
  /** By address: keys of the Services that do not have it. */
  private readonly byAddress = new Map<string, ReadonlySet<string>>();

  constructor(private readonly objects: InvalidObjects) {}

  update(conflicts: readonly AddressConflict[]): void {
    const changed = new Set<Loser>();
    for (const conflict of conflicts) this.take(conflict, changed);
    for (const loser of changed) {
      const { service, lost } = loser;
      const details: string[] = [];
      for (const [address, owner] of lost) {
        if (details.length === maxNamed) break;
        details.push(`${address.slice(address.indexOf(' ') + 1)} is served by ${owner}`);
      }
      this.objects.set('address_taken', { kind: 'Service', ...service }, details, lost.size - details.length);
      if (lost.size === 0) this.losers.delete(keyOf(service));
    }
  }

  private take({ family, address, owner, losers }: AddressConflict, changed: Set<Loser>): void {
    // A node port is one address per family.
    const id = `${family} ${address}`;
    const keys = new Set<string>();
    for (const service of losers) {
      const key = keyOf(service);
      keys.add(key);
      let loser = this.losers.get(key);
      if (loser === undefined) this.losers.set(key, (loser = { service, lost: new Map() }));
      if (loser.lost.get(id) === owner) continue;
      loser.lost.set(id, owner);
      changed.add(loser);
    }
    for (const key of this.byAddress.get(id) ?? []) {
      if (keys.has(key)) continue;
      const loser = this.losers.get(key);
      if (loser?.lost.delete(id) === true) changed.add(loser);
    }
    if (keys.size === 0) this.byAddress.delete(id);
    else this.byAddress.set(id, keys);
  }
}

function keyOf({ namespace, name }: ServiceName): string {
  return `${namespace}/${name}`;
}
