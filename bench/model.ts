/**
 * What the service model costs: initial load and retained memory at 10,000 services x 10 endpoints, and one endpoint
 * event at 100 and at 50,000 services. The ratio between the last two says whether the cost of an event depends on
 * how many services there are; it should be about 1. Events spread over all of 50,000 services are measured too: the
 * work is the same, but half a million endpoints do not fit into the processor's caches.
 *
 *   npx tsc -p . && node --expose-gc dist/bench/model.js
 */
import type { EndpointSlice, Service } from '../src/sources/objects.js';
import { ServiceModel } from '../src/model/model.js';

const ENDPOINTS = 10;
const warmUp = 2_000;
const EVENTS = 5_000;

function service(index: number): Service {
  const clusterIP = `10.${96 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
  return {
    namespace: `team-${index % 100}`,
    name: `service-${index}`,
    uid: '',
    creationTimestamp: '2026-01-01T00:00:00Z',
    serviceProxyName: undefined,
    type: 'ClusterIP',
    clusterIP,
    clusterIPs: [clusterIP],
    ipFamilies: ['IPv4'],
    ports: [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 0 }],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'None',
    affinityTimeoutSeconds: undefined,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: '',
    healthCheckNodePort: 0,
  };
}

/** @param turn shifts one endpoint, so that consecutive turns differ */
function slice(index: number, endpoints: number, turn = 0): EndpointSlice {
  const address = (at: number): string => {
    const pod = index * endpoints + at;
    return `10.${(pod >> 16) & 63}.${(pod >> 8) & 255}.${pod & 255}`;
  };
  return {
    namespace: `team-${index % 100}`,
    name: `service-${index}-abcde`,
    serviceName: `service-${index}`,
    headless: false,
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints: Array.from({ length: endpoints }, (_, at) => ({
      address: at === 0 && turn % 2 === 1 ? `10.64.${(index >> 8) & 255}.${index & 255}` : address(at),
      ready: true,
      serving: true,
      terminating: false,
      nodeName: `node-${(index + at) % 1000}`,
      zoneHints: [],
      nodeHints: [],
    })),
    triggerTime: '',
  };
}

function newModel(): ServiceModel {
  return new ServiceModel({ nodeName: 'node-0', nodeIPs: {}, families: ['IPv4', 'IPv6'], externalIPs: true });
}

/** Objects are made one at a time and not kept, as a source delivers them. Returns milliseconds spent in the model. */
function load(model: ServiceModel, services: number, endpoints: number): number {
  let spent = 0;
  for (let index = 0; index < services; index++) {
    const one = service(index);
    const its = slice(index, endpoints);
    const start = performance.now();
    model.setService(`${one.namespace}/${one.name}`, one);
    model.setEndpointSlice(`${its.namespace}/${its.name}`, its);
    spent += performance.now() - start;
  }
  const start = performance.now();
  const { families } = model.takeChanges();
  spent += performance.now() - start;
  if (families[0]?.upserted.length !== services) throw new Error('not every service port was handed out');
  return spent;
}

function heap(): number {
  if (globalThis.gc === undefined) return NaN;
  globalThis.gc();
  globalThis.gc();
  return process.memoryUsage().heapUsed;
}

function percentile(sorted: Float64Array, p: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? NaN;
}

/** Microseconds per event: one endpoint of one service replaced, changes taken. Events go to the first `services`. */
function events(model: ServiceModel, services: number): Float64Array {
  const times = new Float64Array(EVENTS);
  const turns = new Uint32Array(services);
  // A fixed stride visits the services in no useful order, the same in every run.
  let index = 0;
  for (let event = -warmUp; event < EVENTS; event++) {
    index = (index + 7919) % services;
    const turn = (turns[index] ?? 0) + 1;
    turns[index] = turn;
    const its = slice(index, ENDPOINTS, turn);
    const start = performance.now();
    model.setEndpointSlice(`${its.namespace}/${its.name}`, its);
    const { families } = model.takeChanges();
    const spent = performance.now() - start;
    if (families[0]?.upserted.length !== 1)
      throw new Error('an event that should change one service port did not');
    if (event >= 0) times[event] = spent * 1000;
  }
  return times.sort();
}

function printLoad(services: number, endpoints: number): void {
  const before = heap();
  const model = newModel();
  const spent = load(model, services, endpoints);
  const retained = (heap() - before) / 2 ** 20;
  const total = services * endpoints;
  const perEndpoint = (retained * 2 ** 20) / total;
  console.log(
    `load ${services} services x ${endpoints} endpoints: ${spent.toFixed(0)} ms, ` +
      `retained heap ${retained.toFixed(1)} MiB (${perEndpoint.toFixed(0)} bytes per endpoint)`,
  );
  // Alive until the heap was measured.
  if (model.hasChanges) throw new Error('changes left over');
}

printLoad(1_000, 10);
printLoad(10_000, 10);
printLoad(10_000, 50);
printLoad(100, 5_000);

function printEvents(model: ServiceModel, existing: number, touched: number): number {
  const times = events(model, touched);
  const median = percentile(times, 0.5);
  console.log(
    `one endpoint event at ${existing} services (events go to ${touched} of them): ` +
      `p50 ${median.toFixed(1)} us, p99 ${percentile(times, 0.99).toFixed(1)} us`,
  );
  return median;
}

const small = newModel();
load(small, 100, ENDPOINTS);
const large = newModel();
load(large, 50_000, ENDPOINTS);
heap();
const atSmall = printEvents(small, 100, 100);
const atLarge = printEvents(large, 50_000, 100);
const spread = printEvents(large, 50_000, 50_000);
console.log(
  `ratio of the medians: ${(atLarge / atSmall).toFixed(2)}, spread over all ${(spread / atSmall).toFixed(2)}`,
);
