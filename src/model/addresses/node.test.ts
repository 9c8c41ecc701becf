import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeStatusIPs, resolveNodeIPs } from './node.js';

const statusCases: readonly {
  readonly title: string;
  readonly addresses: readonly (readonly [type: string, address: string])[];
  readonly expected: readonly string[];
}[] = [
  { title: 'none', addresses: [], expected: [] },
  { title: 'a host name is no address', addresses: [['Hostname', 'alder']], expected: [] },
  {
    title: 'InternalIP before ExternalIP, whatever the order',
    addresses: [
      ['ExternalIP', '203.0.113.1'],
      ['InternalIP', '100.64.10.11'],
    ],
    expected: ['100.64.10.11'],
  },
  {
    title: 'the first of the other family comes second',
    addresses: [
      ['InternalIP', '100.64.10.11'],
      ['InternalIP', '100.64.77.11'],
      ['InternalIP', '2001:db8:a::11'],
    ],
    expected: ['100.64.10.11', '2001:db8:a::11'],
  },
  {
    title: 'the other family may come from an ExternalIP',
    addresses: [
      ['ExternalIP', '203.0.113.1'],
      ['InternalIP', '2001:DB8:A::11'],
    ],
    expected: ['2001:db8:a::11', '203.0.113.1'],
  },
  {
    title: 'what does not parse is skipped',
    addresses: [
      ['InternalIP', 'alder'],
      ['InternalIP', '100.64.10.11'],
    ],
    expected: ['100.64.10.11'],
  },
  { title: 'only an external one', addresses: [['ExternalIP', '203.0.113.1']], expected: ['203.0.113.1'] },
];

for (const { title, addresses, expected } of statusCases) {
  test(`node status: ${title}`, () => {
    assert.deepEqual(nodeStatusIPs(addresses.map(([type, address]) => ({ type, address }))), expected);
  });
}

// The table of process.md 3, and its gaps.
// prettier-ignore
const resolveCases: readonly (readonly [status: readonly string[], bind: string, primary: string, v4: string, v6: string])[] = [
  [[], '0.0.0.0', 'IPv4', '127.0.0.1', '::1'],
  [[], '', 'IPv4', '127.0.0.1', '::1'],
  [[], 'fd00:4321::2', 'IPv6', '127.0.0.1', 'fd00:4321::2'],
  [['192.168.1.1'], '::', 'IPv4', '192.168.1.1', '::1'],
  [['fd00:1234::1'], '0.0.0.0', 'IPv6', '127.0.0.1', 'fd00:1234::1'],
  [['2001:db8::2', '90.90.90.90'], '80.80.80.80', 'IPv4', '80.80.80.80', '2001:db8::2'],
  [['90.90.90.90', '2001:db8::2'], '::1', 'IPv6', '90.90.90.90', '::1'],
  [['90.90.90.90', '2001:db8::2'], 'garbage', 'IPv4', '90.90.90.90', '2001:db8::2'],
  [['2001:db8::2', '90.90.90.90'], '', 'IPv6', '90.90.90.90', '2001:db8::2'],
];

for (const [status, bind, primaryFamily, IPv4, IPv6] of resolveCases) {
  test(`node IPs of [${status.join(', ')}] with bind address '${bind}'`, () => {
    const { warnings, ...ips } = resolveNodeIPs(status, bind);
    assert.deepEqual(ips, { primaryFamily, IPv4, IPv6 });
    const loopback = ['127.0.0.1', '::1'].includes(ips[ips.primaryFamily]);
    assert.equal(warnings.length, loopback ? 1 : 0);
    if (loopback) assert.match(warnings[0] ?? '', /--bind-address/);
  });
}
