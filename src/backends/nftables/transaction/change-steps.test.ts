import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Endpoint, ServicePort, VirtualAddress } from '../../../model/types.js';
import type { ServicePortState } from '../state/desired-elements.js';
import { stepsOf, type Step } from './change-steps.js';

function address(ip: string, sourceRanges?: VirtualAddress['sourceRanges']): VirtualAddress {
  return {
    kind: 'ExternalIP',
    ip,
    port: 80,
    scope: 'external',
    policy: 'Cluster',
    fallback: 'serve',
    sourceRanges,
  };
}

function servicePort(name: string, ips: string, clusterEndpoints: readonly Endpoint[] = []): ServicePort {
  return {
    key: name,
    name,
    namespace: 'test',
    serviceName: name,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: '10.0.0.1',
    port: 80,
    addresses: ips
      .split(' ')
      .filter((ip) => ip !== '')
      .map((ip) => address(`192.0.2.${ip}`)),
    clusterEndpoints,
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
  };
}

function plan(
  before: readonly ServicePort[],
  upserted: readonly ServicePort[],
  removed: readonly string[] = [],
) {
  const states = new Map<string, ServicePortState>(
    before.map((port) => [
      port.key,
      { port, clusterSlots: port.clusterEndpoints, localSlots: [], affinity: undefined, hairpins: [] },
    ]),
  );
  return stepsOf({ family: 'IPv4', upserted, removed }, states);
}

/** 'a<b': a takes addresses from b; 'a+': a keeps addresses until they are taken; '|a': not in the same transaction. */
function print(steps: readonly Step[]): string {
  return steps
    .map(({ key, next, claims, keeps, startsTransaction }) => {
      const from = [...new Set(claims?.values() ?? [])].sort().join('');
      return `${startsTransaction === true ? '|' : ''}${next === undefined ? '-' : ''}${key}${from === '' ? '' : `<${from}`}${keeps === undefined ? '' : '+'}`;
    })
    .join(' ');
}

const cases: [what: string, before: string[], after: string[], removed: string, expected: string][] = [
  ['no address moves', ['a 1', 'b 2'], ['b 2 3', 'a 1'], '', 'b a'],
  [
    'from one to the other: the claim comes first, and releases',
    ['a 1 2', 'b 3'],
    ['a 1', 'b 3 2'],
    '',
    'b<a a',
  ],
  ['from one that goes: removals are last', ['a 1', 'b 2'], ['b 1 2'], 'a', 'b<a -a'],
  ['along a chain', ['a 1', 'b 2', 'c 3'], ['a', 'b 1', 'c 2'], '', 'c<b b<a a'],
  [
    'in a circle: one keeps what it loses until it is claimed',
    ['a 1', 'b 2'],
    ['a 2', 'b 1'],
    '',
    'b<a+ a<b b',
  ],
];
for (const [what, before, after, removed, expected] of cases) {
  test(`addresses that move: ${what}`, () => {
    const ports = (list: string[]): ServicePort[] =>
      list.map((line) => servicePort(line.slice(0, 1), line.slice(2)));
    assert.equal(print(plan(ports(before), ports(after), removed === '' ? [] : [removed])), expected);
  });
}

test('source ranges of an address that is new come one transaction before the address', () => {
  const range = { ip: '10.0.0.0', prefixLength: 8 };
  const guarded = { ...servicePort('a', ''), addresses: [address('192.0.2.1', [range])] };
  const [guard, step, ...others] = plan([], [guarded, servicePort('b', '2')]);
  assert.deepEqual(guard?.next?.addresses, [{ ...guarded.addresses[0], guardOnly: true }]);
  assert.deepEqual(guard.next.clusterEndpoints, []);
  assert.deepEqual([step?.next, step?.startsTransaction], [guarded, true]);
  assert.equal(print(others), 'b');
  assert.equal(print(plan([guarded], [guarded])), 'a', 'not when it is there');
});

test('thousands of new endpoints come in stages, those that stay first; that some go takes none', () => {
  const pool = Array.from({ length: 30_000 }, (_, i): Endpoint => ({
    ip: `10.${i >> 8}.${i & 255}.1`,
    port: 80,
    local: false,
    nodeUnknown: false,
  }));
  const before = servicePort('a', '1', pool.slice(0, 20_000));
  const after = servicePort('a', '1', pool.slice(15_000));
  const steps = plan([before], [after]);
  assert.deepEqual(
    steps.map(({ next }) => next?.clusterEndpoints.length),
    [9096, 13_192, 15_000],
  );
  assert.deepEqual(steps[0]?.next?.clusterEndpoints.slice(0, 5000), pool.slice(15_000, 20_000));
  assert.equal(steps.at(-1)?.next, after);
  assert.equal(print(steps), 'a |a |a');
  assert.equal(print(plan([before], [servicePort('a', '1', pool.slice(0, 10))])), 'a');
});
