import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { World } from '../../testing/world.js';
import { EndpointNumbers, noMinors } from '../affinity/endpoint-numbers.js';
import type { ServicePortState } from './desired-elements.js';
import { ServicePortStates } from './programmed-service-ports.js';
import { addressKey } from './elements.js';

const stateOf = (port: ServicePortState['port'], service: number): ServicePortState => ({
  port,
  clusterSlots: port.clusterEndpoints,
  localSlots: port.localEndpoints,
  affinity:
    port.affinitySeconds === 0
      ? undefined
      : { service, numbers: new EndpointNumbers(), clusterMinors: noMinors, localMinors: noMinors },
  hairpins: [],
});

test('owners of addresses and affinity numbers are those that looking at all would find', () => {
  const random = new Random(11);
  const world = new World(random, 'IPv4');
  const states = new ServicePortStates();
  const addresses = new Set<string>();
  for (let step = 0; step < 300; step++) {
    const { upserted, removed } = world.step();
    // While an address moves, two have it; now and then everything is forgotten.
    for (const [index, port] of upserted.entries())
      states.set(port.key, stateOf(port, 0x8000 + step * 8 + index));
    for (const key of removed) states.delete(key);
    if (random.below(50) === 0) states.clear();
    for (const port of world.ports.values())
      for (const address of port.addresses) addresses.add(addressKey(port, address));
    for (const key of addresses) {
      const wanted = [...states.values()].filter(({ port }) =>
        port.addresses.some((address) => addressKey(port, address) === key),
      );
      const found = new Set(states.withAddress(key));
      assert.equal(found.size, wanted.length);
      for (const state of wanted) assert.ok(found.has(state));
    }
    for (let number = 0x8000; number < 0x8000 + step * 8 + 8; number++) {
      const wanted = [...states.values()].find(({ affinity }) => affinity?.service === number);
      assert.equal(states.withAffinityNumber(number), wanted);
    }
  }
});
