/**
 * Pieces of nftables rules, for every mode that writes tables: what a packet is matched by, and what is done with it.
 */
import {
  CT_STATE,
  CT_STATUS,
  drop,
  expr,
  FIB_TYPE,
  selectors,
  type BaseChain,
  type Expression,
  type Field,
} from '@kube-proxy-ts/netlink/nftables';
import type { Cidr, IPFamily, LocalDetector } from '../../model/types.js';
import type { DataplaneOptions } from '../backend.js';
import { addressBytes, hostUint32 } from './keys.js';
import { prefixMask } from './source-ranges.js';

export interface RuleDefinition {
  readonly expressions: readonly Expression[];
}

export interface ChainDefinition {
  readonly name: string;
  readonly base: BaseChain | undefined;
  readonly rules: readonly RuleDefinition[];
}

/** A chain that the kernel calls at a hook; packets that no rule decides about pass. */
export function baseChain(
  hook: BaseChain['hook'],
  priority: number,
  type: BaseChain['type'] = 'filter',
): BaseChain {
  return { type, hook, priority, policy: 'accept' };
}

/** @param base undefined: only rules lead there */
export function chain(name: string, rules: readonly RuleDefinition[], base?: BaseChain): ChainDefinition {
  return { name, base, rules };
}

export function nftFamily(family: IPFamily): 'ip' | 'ip6' {
  return family === 'IPv4' ? 'ip' : 'ip6';
}

/** What rules and keys of a family load. */
export function packetFields(family: IPFamily) {
  const v4 = family === 'IPv4';
  const saddr = v4 ? selectors.ipSaddr : selectors.ip6Saddr;
  const daddr = v4 ? selectors.ipDaddr : selectors.ip6Daddr;
  const nodePort = [selectors.l4proto, selectors.thDport];
  return {
    saddr,
    daddr,
    service: [daddr, ...nodePort],
    nodePort,
    priority: selectors.priority,
  };
}

/** A rule from its parts. */
export const rule = (...parts: readonly (Expression | readonly Expression[])[]): RuleDefinition => ({
  expressions: parts.flat(),
});

/** A number in the byte order of the machine. */
export const word = (value: number): Buffer => Buffer.from(hostUint32(value), 'latin1');
export const zero = word(0);
export const allOnes = word(0xffffffff);

export const ctStateNew: Expression[] = [
  expr.ct('state', 0),
  expr.bitwise(0, 0, word(CT_STATE.new), zero),
  expr.cmp('neq', 0, zero),
];

export const ctStatusDnat: Expression[] = [
  expr.ct('status', 0),
  expr.bitwise(0, 0, word(CT_STATUS.dnat), zero),
  expr.cmp('neq', 0, zero),
];

export function fibTypeLocal(address: 'saddr' | 'daddr'): Expression[] {
  return [expr.fib('type', [address], 0), expr.cmp('eq', 0, word(FIB_TYPE.local))];
}

/** `meta mark set meta mark | mark` */
export function setMark(mark: number): Expression[] {
  return [expr.meta('mark', 0), expr.bitwise(0, 0, word(~mark), word(mark)), expr.metaSet('mark', 0)];
}

/** Of connections that are masqueraded: the node's address, and a port that can't be guessed. */
export const masquerade: Expression = expr.masquerade({ flags: ['fully-random'] });

/** Masquerades what carries the mark. */
export function masqueradeMarked(mark: number): RuleDefinition {
  return rule(
    expr.meta('mark', 0),
    expr.bitwise(0, 0, word(mark), zero),
    expr.cmp('neq', 0, zero),
    // Cleared, so that a packet that enters the stack again (an overlay, IPsec) is not masqueraded twice.
    [expr.meta('mark', 0), expr.bitwise(0, 0, allOnes, word(mark)), expr.metaSet('mark', 0)],
    masquerade,
  );
}

export function addressMatch(field: Field, op: 'eq' | 'neq', cidr: Cidr): Expression[] {
  if (field.load === undefined) return [];
  const bytes = Buffer.from(addressBytes(cidr.ip), 'latin1');
  const whole = cidr.prefixLength === bytes.length * 8;
  const mask = prefixMask(bytes.length, cidr.prefixLength);
  return [
    field.load(0),
    ...(whole ? [] : [expr.bitwise(0, 0, mask, Buffer.alloc(bytes.length))]),
    expr.cmp(op, 0, bytes),
  ];
}

const interfaceNameBytes = 16;

export function sourceIsPod(detector: LocalDetector, saddr: Field, op: 'eq' | 'neq'): Expression[] {
  switch (detector.kind) {
    case 'cidr':
      return addressMatch(saddr, op, detector.cidr);
    case 'interface': {
      const name = Buffer.alloc(interfaceNameBytes);
      name.write(detector.name);
      return [expr.meta('iifname', 0), expr.cmp(op, 0, name)];
    }
    case 'interfacePrefix':
      return [expr.meta('iifname', 0), expr.cmp(op, 0, Buffer.from(detector.prefix))];
  }
}

const loopbackInterface = Buffer.alloc(interfaceNameBytes);
loopbackInterface.write('lo');
export const fromElsewhere: Expression[] = [expr.meta('iifname', 0), expr.cmp('neq', 0, loopbackInterface)];

/** What neighbours send to loopback addresses; replies to translated connections of this node are let through. */
export function loopbackGuard(options: DataplaneOptions): RuleDefinition[] {
  if (options.guardLoopback !== true || options.family !== 'IPv4') return [];
  const { daddr } = packetFields(options.family);
  return [
    rule(
      fromElsewhere,
      addressMatch(daddr, 'eq', { ip: '127.0.0.0', prefixLength: 8 }),
      [expr.ct('state', 0), expr.bitwise(0, 0, word(CT_STATE.established | CT_STATE.related), zero)],
      expr.cmp('eq', 0, zero),
      [expr.ct('status', 0), expr.bitwise(0, 0, word(CT_STATUS.dnat), zero)],
      expr.cmp('eq', 0, zero),
      expr.verdict(drop),
    ),
  ];
}
