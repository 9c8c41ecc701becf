/**
 * Rules in nft's language beside what this library calls them; the sets they use are those of sets.fixture.ts. The unit
 * tests hold them against recorded bytes, the kernel tests against the kernel and against what `nft list ruleset` prints.
 *
 * Register contents are written for a little-endian machine, like the recordings.
 */
import { accept, continueRule, drop, goTo, jumpTo, returnToCaller } from '../data.js';
import { expr, type Expression } from '../expression/index.js';
import { r0, r1, r2, r3, r4, r5, r6, r8, r12 } from '../register.js';

export interface RuleCase {
  readonly family: 'ip' | 'ip6';
  /** pre and post are nat base chains of prerouting and postrouting, c is a plain chain. */
  readonly chain: 'pre' | 'post' | 'c';
  readonly text: string;
  /** As nft lists it, where that differs. */
  readonly listed?: string;
  readonly expressions: readonly Expression[];
}

function bytes(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}

export const RULE_CASES: readonly RuleCase[] = [
  {
    family: 'ip',
    chain: 'c',
    text: 'meta priority set ip daddr . meta l4proto . th dport map @service-ips',
    expressions: [
      expr.payload('network', 16, 4, r0),
      expr.meta('l4proto', r1),
      expr.payload('transport', 2, 2, r2),
      expr.lookup('service-ips', r0, { dreg: r0 }),
      expr.metaSet('priority', r0),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'meta priority vmap @classes',
    expressions: [expr.meta('priority', r0), expr.lookup('classes', r0, { dreg: 'verdict' })],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'meta priority set none',
    expressions: [expr.immediate(r0, bytes('00000000')), expr.metaSet('priority', r0)],
  },
  {
    family: 'ip',
    chain: 'pre',
    text: 'dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints',
    expressions: [
      expr.payload('network', 16, 4, r0),
      expr.meta('l4proto', r1),
      expr.payload('transport', 2, 2, r2),
      expr.numgen('random', 3, r3),
      expr.lookup('endpoints', r0, { dreg: r0 }),
      expr.dnat('ip', { address: r0, port: r1 }),
    ],
  },
  {
    family: 'ip',
    chain: 'pre',
    text: 'meta l4proto tcp dnat ip to meta priority map @affinity-endpoints',
    expressions: [
      expr.meta('l4proto', r0),
      expr.cmp('eq', r0, bytes('06')),
      expr.meta('priority', r0),
      expr.lookup('affinity-endpoints', r0, { dreg: r0 }),
      expr.dnat('ip', { address: r0, port: r1 }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'meta priority set ip saddr . meta priority map @affinity',
    expressions: [
      expr.payload('network', 12, 4, r0),
      expr.meta('priority', r1),
      expr.lookup('affinity', r0, { dreg: r0 }),
      expr.metaSet('priority', r0),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'update @affinity { ip saddr . meta priority & ffff:0 timeout 3h : meta priority }',
    expressions: [
      expr.payload('network', 12, 4, r0),
      expr.meta('priority', r1),
      expr.bitwise(r1, r1, bytes('0000ffff'), bytes('00000000')),
      expr.meta('priority', r4),
      expr.dynset('update', 'affinity', r0, { data: r4, timeoutMs: 10800000 }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'delete @affinity { ip saddr . meta priority & ffff:0 : meta priority }',
    expressions: [
      expr.payload('network', 12, 4, r0),
      expr.meta('priority', r1),
      expr.bitwise(r1, r1, bytes('0000ffff'), bytes('00000000')),
      expr.meta('priority', r4),
      expr.dynset('delete', 'affinity', r0, { data: r4 }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ip saddr & 255.255.255.0 . ip daddr . meta l4proto . th dport @source-ranges-24 return',
    expressions: [
      expr.payload('network', 12, 4, r0),
      expr.bitwise(r0, r0, bytes('ffffff00'), bytes('00000000')),
      expr.payload('network', 16, 4, r1),
      expr.meta('l4proto', r2),
      expr.payload('transport', 2, 2, r3),
      expr.lookup('source-ranges-24', r0),
      expr.verdict(returnToCaller),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ip daddr @cluster-ips ct state new reject',
    expressions: [
      expr.payload('network', 16, 4, r0),
      expr.lookup('cluster-ips', r0),
      expr.ct('state', r0),
      expr.bitwise(r0, r0, bytes('08000000'), bytes('00000000')),
      expr.cmp('neq', r0, bytes('00000000')),
      expr.reject('icmp', 3),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ip daddr != @service-cidrs meta l4proto tcp reject with tcp reset',
    listed: 'ip daddr != @service-cidrs reject with tcp reset',
    expressions: [
      expr.payload('network', 16, 4, r0),
      expr.lookup('service-cidrs', r0, { inverted: true }),
      expr.meta('l4proto', r0),
      expr.cmp('eq', r0, bytes('06')),
      expr.reject('tcpReset'),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'reject with icmp admin-prohibited',
    expressions: [expr.reject('icmp', 13)],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ip saddr != 10.61.0.0/16 meta mark set meta mark | 0x4000',
    listed: 'ip saddr != 10.61.0.0/16 meta mark set meta mark | 0x00004000',
    expressions: [
      expr.payload('network', 12, 2, r0),
      expr.cmp('neq', r0, bytes('0a3d')),
      expr.meta('mark', r0),
      expr.bitwise(r0, r0, bytes('ffbfffff'), bytes('00400000')),
      expr.metaSet('mark', r0),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'iifname != "veth*" counter packets 7 bytes 11 accept',
    expressions: [
      expr.meta('iifname', r0),
      expr.cmp('neq', r0, bytes('76657468')),
      expr.counter(7n, 11n),
      expr.verdict(accept),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'iifname "lo" drop',
    expressions: [
      expr.meta('iifname', r0),
      expr.cmp('eq', r0, bytes('6c6f0000000000000000000000000000')),
      expr.verdict(drop),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'fib daddr type local ip daddr != 127.0.0.0/8 jump pick-3',
    expressions: [
      expr.fib('type', ['daddr'], r0),
      expr.cmp('eq', r0, bytes('02000000')),
      expr.payload('network', 16, 1, r0),
      expr.cmp('neq', r0, bytes('7f')),
      expr.verdict(jumpTo('pick-3')),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'fib saddr type local goto pick-3',
    expressions: [
      expr.fib('type', ['saddr'], r0),
      expr.cmp('eq', r0, bytes('02000000')),
      expr.verdict(goTo('pick-3')),
    ],
  },
  {
    family: 'ip',
    chain: 'post',
    text: 'meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random',
    listed:
      'meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random',
    expressions: [
      expr.meta('mark', r0),
      expr.bitwise(r0, r0, bytes('00400000'), bytes('00000000')),
      expr.cmp('neq', r0, bytes('00000000')),
      expr.meta('mark', r0),
      expr.bitwise(r0, r0, bytes('ffffffff'), bytes('00400000')),
      expr.metaSet('mark', r0),
      expr.masquerade({ flags: ['fully-random'] }),
    ],
  },
  {
    family: 'ip',
    chain: 'post',
    text: 'ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random',
    expressions: [
      expr.ct('status', r0),
      expr.bitwise(r0, r0, bytes('20000000'), bytes('00000000')),
      expr.cmp('neq', r0, bytes('00000000')),
      expr.payload('network', 12, 4, r0),
      expr.payload('network', 16, 4, r1),
      expr.meta('l4proto', r2),
      expr.payload('transport', 2, 2, r3),
      expr.lookup('hairpin-connections', r0),
      expr.masquerade({ flags: ['fully-random'] }),
    ],
  },
  {
    family: 'ip',
    chain: 'post',
    text: 'meta l4proto tcp masquerade to :1024-65535 random',
    expressions: [
      expr.meta('l4proto', r0),
      expr.cmp('eq', r0, bytes('06')),
      expr.immediate(r0, bytes('0400')),
      expr.immediate(r4, bytes('ffff')),
      expr.masquerade({ flags: ['random'], port: r0, portMax: r4 }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ct original ip daddr 1.2.3.4 continue',
    expressions: [
      expr.ct('ipDaddr', r0, 'original'),
      expr.cmp('eq', r0, bytes('01020304')),
      expr.verdict(continueRule),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'meta l4proto tcp ct original proto-dst 80 ct mark set 0x1',
    listed: 'meta l4proto tcp ct original proto-dst 80 ct mark set 0x00000001',
    expressions: [
      expr.meta('l4proto', r0),
      expr.cmp('eq', r0, bytes('06')),
      expr.ct('protoDst', r0, 'original'),
      expr.cmp('eq', r0, bytes('0050')),
      expr.immediate(r0, bytes('01000000')),
      expr.ctSet('mark', r0),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'th dport 30000-32767 drop',
    expressions: [
      expr.payload('transport', 2, 2, r0),
      expr.cmp('gte', r0, bytes('7530')),
      expr.cmp('lte', r0, bytes('7fff')),
      expr.verdict(drop),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'th dport != 30000-32767 drop',
    expressions: [
      expr.payload('transport', 2, 2, r0),
      expr.range('neq', r0, bytes('7530'), bytes('7fff')),
      expr.verdict(drop),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'jhash ip saddr mod 7 seed 0xdeadbeef 3 drop',
    expressions: [
      expr.payload('network', 12, 4, r4),
      expr.jhash(r4, 4, 7, r0, { seed: 0xdeadbeef }),
      expr.cmp('eq', r0, bytes('03000000')),
      expr.verdict(drop),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'numgen inc mod 5 offset 100 103 drop',
    expressions: [expr.numgen('inc', 5, r0, 100), expr.cmp('eq', r0, bytes('67000000')), expr.verdict(drop)],
  },
  {
    family: 'ip',
    chain: 'post',
    text: 'meta l4proto tcp snat ip to 1.2.3.4-1.2.3.9:100-200 persistent',
    listed: 'meta l4proto tcp snat to 1.2.3.4-1.2.3.9:100-200 persistent',
    expressions: [
      expr.meta('l4proto', r0),
      expr.cmp('eq', r0, bytes('06')),
      expr.immediate(r0, bytes('01020304')),
      expr.immediate(r4, bytes('01020309')),
      expr.immediate(r8, bytes('0064')),
      expr.immediate(r12, bytes('00c8')),
      expr.snat('ip', { address: r0, addressMax: r4, port: r8, portMax: r12, flags: ['persistent'] }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'ip ttl set 17',
    expressions: [
      expr.payload('network', 8, 2, r0),
      expr.bitwise(r0, r0, bytes('00ff'), bytes('1100')),
      expr.payloadSet('network', 8, 2, r0, { checksum: { type: 'inet', offset: 10 } }),
    ],
  },
  {
    family: 'ip',
    chain: 'c',
    text: 'limit rate 10/second accept',
    expressions: [
      {
        kind: 'unknown',
        name: 'limit',
        data: bytes(
          '0c000100000000000000000a0c0002000000000000000001080003000000000508000400000000000800050000000000',
        ),
      },
      expr.verdict(accept),
    ],
  },
  {
    family: 'ip6',
    chain: 'pre',
    text: 'dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints',
    expressions: [
      expr.payload('network', 24, 16, r0),
      expr.meta('l4proto', r4),
      expr.payload('transport', 2, 2, r5),
      expr.numgen('random', 3, r6),
      expr.lookup('endpoints', r0, { dreg: r0 }),
      expr.dnat('ip6', { address: r0, port: r4 }),
    ],
  },
  {
    family: 'ip6',
    chain: 'c',
    text: 'reject',
    expressions: [expr.reject('icmp', 4)],
  },
  {
    family: 'ip6',
    chain: 'c',
    text: 'ip6 saddr & ffff:ffff:: == 2001:db8:: drop',
    listed: 'ip6 saddr 2001:db8::/32 drop',
    expressions: [
      expr.payload('network', 8, 16, r0),
      expr.bitwise(
        r0,
        r0,
        bytes('ffffffff000000000000000000000000'),
        bytes('00000000000000000000000000000000'),
      ),
      expr.cmp('eq', r0, bytes('20010db8000000000000000000000000')),
      expr.verdict(drop),
    ],
  },
];
