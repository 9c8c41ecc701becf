import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatCidr } from './addresses.js';
import {
  findWrongNodePortAddresses,
  resolveNodePortAddresses,
  selectNodePortIPs,
} from './nodeport-addresses.js';

const alder = { IPv4: '100.64.10.11', IPv6: '2001:db8:a::11' };
const interfaces = [
  '127.0.0.1',
  '100.64.10.11',
  '100.64.77.11',
  '100.64.77.11',
  '::1',
  '2001:db8:a::11',
  '2001:db8:77::11',
];
const v6Cases = ['2001:db8:a::11', '2001:db8:77::11'];

const cases: readonly {
  readonly title: string;
  readonly values: readonly string[];
  readonly node?: typeof alder;
  /** CIDRs in effect; 'all' for match-all. */
  readonly cidrs: readonly [v4: string, v6: string];
  /** Addresses selected out of interfaces. */
  readonly v4: readonly string[];
  readonly v6: readonly string[];
  readonly warns?: readonly string[];
}[] = [
  {
    title: 'unset: every address, and no warning',
    values: [],
    cidrs: ['all', 'all'],
    v4: ['100.64.10.11', '100.64.77.11'],
    v6: v6Cases,
  },
  {
    title: 'rows 150 and 154: primary',
    values: ['primary'],
    cidrs: ['100.64.10.11/32', '2001:db8:a::11/128'],
    v4: ['100.64.10.11'],
    v6: ['2001:db8:a::11'],
  },
  {
    title: 'row 157: match all beats other CIDRs of the family',
    values: ['100.64.77.0/24', '0.0.0.0/0', '::/0'],
    cidrs: ['all', 'all'],
    v4: ['100.64.10.11', '100.64.77.11'],
    v6: v6Cases,
  },
  {
    title: 'rows 158 to 160: one IPv4 CIDR leaves IPv6 open',
    values: ['100.64.77.0/24'],
    cidrs: ['100.64.77.0/24', 'all'],
    v4: ['100.64.77.11'],
    v6: v6Cases,
    warns: ['IPv6'],
  },
  {
    title: 'row 161: primary without an IPv6 address',
    values: ['primary'],
    node: { IPv4: '100.64.10.11', IPv6: '::1' },
    cidrs: ['100.64.10.11/32', 'all'],
    v4: ['100.64.10.11'],
    v6: v6Cases,
    warns: ['IPv6'],
  },
  {
    title: 'row 162: no address matches',
    values: ['172.16.0.0/12', '2001:db8:ff::/48'],
    cidrs: ['172.16.0.0/12', '2001:db8:ff::/48'],
    v4: [],
    v6: [],
  },
  {
    title: 'row 168: loopback only',
    values: ['127.0.0.0/8', '::1/128'],
    cidrs: ['127.0.0.0/8', '::1/128'],
    v4: [],
    v6: [],
  },
  {
    title: 'keywords and CIDRs mixed',
    values: ['primary', 'localhost', '10.0.0.0/8'],
    cidrs: ['100.64.10.11/32,127.0.0.0/8,10.0.0.0/8', '2001:db8:a::11/128,::1/128'],
    v4: ['100.64.10.11'],
    v6: ['2001:db8:a::11'],
  },
  {
    title: 'all beats what else the list has',
    values: ['primary', 'all', 'localhost'],
    cidrs: ['all', 'all'],
    v4: ['100.64.10.11', '100.64.77.11'],
    v6: v6Cases,
  },
  {
    title: 'localhost speaks for both families, primary then needs no address',
    values: ['localhost', 'primary'],
    node: { IPv4: '100.64.10.11', IPv6: '::1' },
    cidrs: ['127.0.0.0/8,100.64.10.11/32', '::1/128'],
    v4: ['100.64.10.11'],
    v6: [],
  },
];

for (const { title, values, node = alder, cidrs, v4, v6, warns = [] } of cases) {
  test(`node port addresses: ${title}`, () => {
    const { IPv4, IPv6 } = resolveNodePortAddresses(values, node);
    const print = (selection: typeof IPv4): string =>
      selection.matchAll ? 'all' : selection.cidrs.map(formatCidr).join(',');
    assert.deepEqual([print(IPv4), print(IPv6)], cidrs);
    assert.deepEqual(selectNodePortIPs(IPv4, interfaces), v4);
    assert.deepEqual(selectNodePortIPs(IPv6, interfaces), v6);
    const warned = [IPv4, IPv6].filter((s) => s.warning !== undefined).map((s) => s.family);
    assert.deepEqual(warned, warns);
  });
}

test('loopback addresses count only where asked for, and only those that are configured (row 170)', () => {
  const { IPv4 } = resolveNodePortAddresses(['127.0.0.0/8'], alder);
  assert.deepEqual(selectNodePortIPs(IPv4, interfaces, true), ['127.0.0.1']);
});

// prettier-ignore
const loopback: readonly (readonly [values: readonly string[], v4: boolean, v6: boolean])[] = [
  [[], true, true],
  [['primary'], false, false],
  [['127.0.0.0/8'], true, true],
  [['127.3.0.0/16', 'fd00::/8'], true, false],
  [['64.0.0.0/2', '::1/128'], true, true],
  [['100.64.0.0/16', 'fd00::/8'], false, false],
];

for (const [values, v4, v6] of loopback) {
  test(`[${values.join(', ')}] contains loopback: IPv4 ${v4}, IPv6 ${v6}`, () => {
    const { IPv4, IPv6 } = resolveNodePortAddresses(values, alder);
    assert.deepEqual([IPv4.containsLoopback, IPv6.containsLoopback], [v4, v6]);
  });
}

// prettier-ignore
const named: readonly (readonly [values: readonly string[], v4: boolean, v6: boolean])[] = [
  [[], false, false],
  [['all'], false, false],
  [['localhost'], true, true],
  [['all', 'localhost'], true, true],
  [['127.3.0.0/16'], true, false],
  [['64.0.0.0/2'], false, false],
  [['::1/128'], false, true],
  [['::/0'], false, false],
];

for (const [values, v4, v6] of named) {
  test(`[${values.join(', ')}] names loopback addresses: IPv4 ${v4}, IPv6 ${v6}`, () => {
    const { IPv4, IPv6 } = resolveNodePortAddresses(values, alder);
    assert.deepEqual([IPv4.namesLoopback, IPv6.namesLoopback], [v4, v6]);
  });
}

// prettier-ignore
const validation: readonly (readonly [values: readonly string[], expected: readonly string[]])[] = [
  [[], []],
  [['primary'], []],
  [['10.0.0.0/8', 'fd00::/8'], []],
  [['primary', 'localhost', '10.0.0.0/8'], []],
  [['10.0.0.0/8', 'all', '10.0.0.0/8'], []],
  [['primary', 'primary'], ['Duplicate value 1']],
  [['all', 'localhost', 'all', 'localhost', 'all'], ['Duplicate value 2', 'Duplicate value 3', 'Duplicate value 4']],
  [['10.0.0.1', 'fd00::/8', 'pear', 'Primary'], ['Invalid value 0', 'Invalid value 2', 'Invalid value 3']],
];

for (const [values, expected] of validation) {
  test(`[${values.join(', ')}] is ${expected.length === 0 ? 'valid' : 'refused'}`, () => {
    assert.deepEqual(
      findWrongNodePortAddresses(values).map(({ type, item }) => `${type} ${item.index}`),
      expected,
    );
  });
}
