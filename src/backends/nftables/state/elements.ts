/** Elements of our sets and maps, singly and in the runs in which endpoints have them. */
import type { Endpoint, ServicePort, VirtualAddress } from '../../../model/types.js';
import { classId, hostUint32, nodePortKey, serviceKey, targetBytes } from '../../nft/keys.js';

export interface Element {
  readonly set: string;
  readonly key: string;
  /** undefined in sets. */
  readonly value: string | undefined;
  /** Shown by `nft list`; at most 128 bytes (NFTNL_UDATA_COMMENT_MAXLEN). */
  readonly comment: string | undefined;
}

/** The elements `prefix . slot → value of the endpoint in it` of one list of one address. */
export interface SlotBlock {
  readonly set: string;
  readonly prefix: string;
  readonly slots: readonly Endpoint[];
  /** Of endpoints with affinity, by slot; undefined: the value is the endpoint's address and port. */
  readonly numbers: { readonly service: number; readonly minors: Uint16Array } | undefined;
}

/** The elements `number of the endpoint → endpoint` of one list of a service port with affinity. */
export interface NumberedEndpoints {
  readonly set: string;
  readonly service: number;
  readonly endpoints: readonly Endpoint[];
  /** By endpoint. */
  readonly minors: Uint16Array;
}

const maxCommentBytes = 128;

/** `ns/name:port`, cut to what the kernel's tools accept. */
export function elementComment(name: string): string {
  return name.length <= maxCommentBytes ? name : `${name.slice(0, maxCommentBytes - 3)}...`;
}

/** Key of the slot block's element for one slot. */
export function slotKey(prefix: string, slot: number): string {
  return prefix + hostUint32(slot);
}

/** @param at index in block.slots */
export function slotValue({ slots, numbers }: SlotBlock, at: number): string {
  if (numbers !== undefined) return hostUint32(classId(numbers.service, numbers.minors[at] ?? 0));
  const endpoint = slots[at];
  if (endpoint === undefined) throw new RangeError(`no slot ${at}`);
  return targetBytes(endpoint);
}

/** Key of the element of one endpoint. @param at index in list.endpoints */
export function numberKey({ service, minors }: NumberedEndpoints, at: number): string {
  return hostUint32(classId(service, minors[at] ?? 0));
}

/** The key of an address in the maps that addresses stand in, latin1. */
export function addressKey(port: ServicePort, address: VirtualAddress): string {
  return address.kind === 'NodePort'
    ? nodePortKey(port.protocol, address.port)
    : serviceKey(address.ip, port.protocol, address.port);
}
