/**
 * The service ports that are in the kernel, with two indexes: whose an address is, and whose an affinity number. They follow
 * from set() and delete() alone, so that a transaction that is taken back (Transaction.note) takes them back, too.
 */
import type { ServicePort } from '../../../model/types.js';
import type { ServicePortState } from './desired-elements.js';
import { addressKey } from './elements.js';

/** One owner, as nearly always, or several: by the same hash, or while an address moves. */
type Owners = string | readonly string[];

export class ServicePortStates extends Map<string, ServicePortState> {
  /** By hash of the address's key: numbers take less room than keys, and there are a hundred thousand. */
  private readonly byAddress = new Map<number, Owners>();
  private readonly byAffinityNumber = new Map<number, string>();

  override set(key: string, state: ServicePortState): this {
    const before = this.get(key);
    if (before?.port.addresses !== state.port.addresses || before.port.protocol !== state.port.protocol) {
      if (before !== undefined) this.leave(key, before.port);
      this.enter(key, state.port);
    }
    if (before?.affinity?.service !== state.affinity?.service) {
      if (before !== undefined) this.leaveNumber(key, before);
      if (state.affinity !== undefined) this.byAffinityNumber.set(state.affinity.service, key);
    }
    return super.set(key, state);
  }

  override delete(key: string): boolean {
    const before = this.get(key);
    if (before !== undefined) {
      this.leave(key, before.port);
      this.leaveNumber(key, before);
    }
    return super.delete(key);
  }

  override clear(): void {
    this.byAddress.clear();
    this.byAffinityNumber.clear();
    super.clear();
  }

  /** All that have an address with this key (addressKey), and perhaps others. */
  *withAddress(address: string): Generator<ServicePortState, void, undefined> {
    const owners = this.byAddress.get(hash(address));
    if (owners === undefined) return;
    for (const key of typeof owners === 'string' ? [owners] : owners) {
      const state = this.get(key);
      if (state !== undefined) yield state;
    }
  }

  /** The one whose clients are remembered under this number. */
  withAffinityNumber(number: number): ServicePortState | undefined {
    const key = this.byAffinityNumber.get(number);
    return key === undefined ? undefined : this.get(key);
  }

  private enter(key: string, port: ServicePort): void {
    for (const address of port.addresses) {
      const id = hash(addressKey(port, address));
      const owners = this.byAddress.get(id);
      if (owners === undefined) this.byAddress.set(id, key);
      else this.byAddress.set(id, [...(typeof owners === 'string' ? [owners] : owners), key]);
    }
  }

  private leave(key: string, port: ServicePort): void {
    for (const address of port.addresses) {
      const id = hash(addressKey(port, address));
      const owners = this.byAddress.get(id);
      if (owners === undefined) continue;
      const rest = typeof owners === 'string' ? (owners === key ? [] : [owners]) : without(owners, key);
      const [only] = rest;
      if (only === undefined) this.byAddress.delete(id);
      else this.byAddress.set(id, rest.length === 1 ? only : rest);
    }
  }

  private leaveNumber(key: string, { affinity }: ServicePortState): void {
    if (affinity !== undefined && this.byAffinityNumber.get(affinity.service) === key)
      this.byAffinityNumber.delete(affinity.service);
  }
}

/** Once: two addresses of one service port may have the same hash. */
function without(owners: readonly string[], key: string): readonly string[] {
  const at = owners.indexOf(key);
  return at < 0 ? owners : [...owners.slice(0, at), ...owners.slice(at + 1)];
}

/** FNV-1a, mixed, and small enough for V8 to keep it without an object. */
function hash(bytes: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) value = Math.imul(value ^ bytes.charCodeAt(i), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (value ^ (value >>> 13)) & 0x3fffffff;
}
