/**
 * Sets in nft's language beside what this library calls them. The unit tests hold them against recorded bytes, the
 * kernel tests against the kernel and against what `nft list ruleset` prints.
 */
import { selectors, types } from '../field.js';
import type { SetDefinition } from '../objects/set.js';

export interface SetCase {
  readonly family: 'ip' | 'ip6';
  readonly text: string;
  readonly definition: SetDefinition;
}

const { ipSaddr, ipDaddr, ip6Daddr, l4proto, thDport, priority, numgenRandom } = selectors;

export const SET_CASES: readonly SetCase[] = [
  {
    family: 'ip',
    text: 'map endpoints { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; }',
    definition: {
      name: 'endpoints',
      key: [ipDaddr, l4proto, thDport, numgenRandom(2)],
      value: [ipDaddr, thDport],
    },
  },
  {
    family: 'ip',
    text: 'map service-ips { typeof ip daddr . meta l4proto . th dport : meta priority; comment "virtual addresses"; }',
    definition: {
      name: 'service-ips',
      key: [ipDaddr, l4proto, thDport],
      value: [priority],
      comment: 'virtual addresses',
    },
  },
  {
    family: 'ip',
    text: 'map classes { typeof meta priority : verdict; }',
    definition: { name: 'classes', key: [priority], value: 'verdict' },
  },
  {
    family: 'ip',
    text: 'map affinity { typeof ip saddr . meta priority : meta priority; size 1000; flags dynamic,timeout; }',
    definition: {
      name: 'affinity',
      key: [ipSaddr, priority],
      value: [priority],
      size: 1000,
      dynamic: true,
      timeout: true,
    },
  },
  {
    family: 'ip',
    text: 'map affinity-slots { typeof meta priority . numgen random mod 2 : meta priority; }',
    definition: { name: 'affinity-slots', key: [priority, numgenRandom(2)], value: [priority] },
  },
  {
    family: 'ip',
    text: 'map affinity-endpoints { typeof meta priority : ip daddr . th dport; }',
    definition: { name: 'affinity-endpoints', key: [priority], value: [ipDaddr, thDport] },
  },
  {
    family: 'ip',
    text: 'set service-cidrs { type ipv4_addr; flags interval; }',
    definition: { name: 'service-cidrs', key: [types.ipv4Addr], interval: true },
  },
  {
    family: 'ip',
    text: 'set cluster-ips { type ipv4_addr; }',
    definition: { name: 'cluster-ips', key: [types.ipv4Addr] },
  },
  {
    family: 'ip',
    text: 'set source-ranges-24 { typeof ip saddr . ip daddr . meta l4proto . th dport; }',
    definition: { name: 'source-ranges-24', key: [ipSaddr, ipDaddr, l4proto, thDport] },
  },
  {
    family: 'ip',
    text: 'set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }',
    definition: {
      name: 'hairpin-connections',
      key: [types.ipv4Addr, types.ipv4Addr, types.inetProto, types.inetService],
    },
  },
  {
    family: 'ip',
    text: 'set node-ports { type inet_proto . inet_service; flags timeout; timeout 1h; }',
    definition: {
      name: 'node-ports',
      key: [types.inetProto, types.inetService],
      timeout: true,
      timeoutMs: 3_600_000,
    },
  },
  {
    family: 'ip',
    text: 'set ranges { type ipv4_addr . inet_service; flags interval; }',
    definition: { name: 'ranges', key: [types.ipv4Addr, types.inetService], interval: true },
  },
  {
    family: 'ip',
    text: 'map marks { type mark : ipv4_addr; flags constant; }',
    definition: { name: 'marks', key: [types.mark], value: [types.ipv4Addr], constant: true },
  },
  {
    family: 'ip6',
    text: 'map endpoints { typeof ip6 daddr . meta l4proto . th dport . numgen random mod 2 : ip6 daddr . th dport; }',
    definition: {
      name: 'endpoints',
      key: [ip6Daddr, l4proto, thDport, numgenRandom(2)],
      value: [ip6Daddr, thDport],
    },
  },
  {
    family: 'ip6',
    text: 'set hairpin-connections { type ipv6_addr . ipv6_addr . inet_proto . inet_service; }',
    definition: {
      name: 'hairpin-connections',
      key: [types.ipv6Addr, types.ipv6Addr, types.inetProto, types.inetService],
    },
  },
];
