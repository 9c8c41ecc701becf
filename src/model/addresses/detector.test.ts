import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDetectLocalMode, resolveDetectors, validateDetector, type DetectorConfig } from './detector.js';
import type { LocalDetector } from '../types.js';

function config(fields: Partial<DetectorConfig>): DetectorConfig {
  return {
    mode: 'ClusterCIDR',
    clusterCIDRs: [],
    podCIDRs: [],
    bridgeInterface: '',
    interfaceNamePrefix: '',
    ...fields,
  };
}

function print(detector: LocalDetector | undefined): string {
  switch (detector?.kind) {
    case 'cidr':
      return `${detector.cidr.ip}/${detector.cidr.prefixLength}`;
    case 'interface':
      return detector.name;
    case 'interfacePrefix':
      return `${detector.prefix}*`;
    case undefined:
      return 'none';
  }
}

const both = ['10.61.0.0/16', 'fd61::/48'];

const cases: readonly {
  readonly fields: Partial<DetectorConfig>;
  readonly expected: readonly [v4: string, v6: string];
  readonly invalid?: RegExp;
}[] = [
  { fields: { clusterCIDRs: both }, expected: ['10.61.0.0/16', 'fd61::/48'] },
  { fields: { clusterCIDRs: [...both].reverse() }, expected: ['10.61.0.0/16', 'fd61::/48'] },
  { fields: { clusterCIDRs: [' 10.061.1.7/16'] }, expected: ['10.61.0.0/16', 'none'], invalid: /valid CIDR/ },
  { fields: {}, expected: ['none', 'none'] },
  { fields: { clusterCIDRs: [''] }, expected: ['none', 'none'], invalid: /valid CIDR/ },
  {
    fields: { clusterCIDRs: ['10.61.0.0/16', '10.62.0.0/16'] },
    expected: ['10.61.0.0/16', 'none'],
    invalid: /one of each family/,
  },
  {
    fields: { clusterCIDRs: [...both, '10.62.0.0/16'] },
    expected: ['10.61.0.0/16', 'fd61::/48'],
    invalid: /one/,
  },
  {
    fields: { mode: 'NodeCIDR', clusterCIDRs: both, podCIDRs: ['10.61.1.0/24', 'fd61:0:0:1::/64'] },
    expected: ['10.61.1.0/24', 'fd61:0:0:1::/64'],
  },
  { fields: { mode: 'NodeCIDR', clusterCIDRs: both }, expected: ['none', 'none'] },
  { fields: { mode: 'BridgeInterface', bridgeInterface: 'br-pods' }, expected: ['br-pods', 'br-pods'] },
  { fields: { mode: 'BridgeInterface' }, expected: ['', ''], invalid: /--pod-bridge-interface/ },
  { fields: { mode: 'InterfaceNamePrefix', interfaceNamePrefix: 'veth' }, expected: ['veth*', 'veth*'] },
  { fields: { mode: 'InterfaceNamePrefix' }, expected: ['*', '*'], invalid: /--pod-interface-name-prefix/ },
];

for (const { fields, expected, invalid } of cases) {
  test(`detector of ${JSON.stringify(fields)}`, () => {
    const { IPv4, IPv6, warnings } = resolveDetectors(config(fields));
    assert.deepEqual([print(IPv4), print(IPv6)], expected);
    assert.deepEqual(
      [warnings.IPv4 !== undefined, warnings.IPv6 !== undefined],
      expected.map((e) => e === 'none'),
    );
    const problems = validateDetector(config(fields));
    if (invalid === undefined) assert.deepEqual(problems, []);
    else assert.match(problems.join('\n'), invalid);
  });
}

test('modes are case-sensitive', () => {
  assert.ok(isDetectLocalMode('NodeCIDR'));
  assert.ok(!isDetectLocalMode('nodecidr'));
});
