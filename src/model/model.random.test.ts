/**
 * The incremental model against a naive one: after every step of a random sequence of events, what the stream of
 * changes adds up to must be what evaluating all objects from scratch gives. The naive evaluation below follows
 * the text of service-model.md sentence by sentence and shares no code with the model.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, IPFamily, Protocol, Service, SliceEndpoint } from '../sources/objects.js';
import { ServiceModel } from './model.js';
import type { Cidr, Endpoint, Fallback, HealthCheckPort, ServicePort, VirtualAddress } from './types.js';

const seeds = 60;
const steps = 80;
const node = 'alder';
const nodeIps = { IPv4: '100.64.10.11', IPv6: '2001:db8:a::11' };
const familyNames: readonly IPFamily[] = ['IPv4', 'IPv6'];

/** Text in objects → canonical address. What is missing here is not an address. */
const addressCases: Readonly<Record<string, string>> = {
  '10.1.0.1': '10.1.0.1',
  '010.001.0.01': '10.1.0.1',
  '10.1.0.10': '10.1.0.10',
  '10.1.0.2': '10.1.0.2',
  '::ffff:10.1.0.2': '10.1.0.2',
  'fd00::1': 'fd00::1',
  'FD00:0:0::1': 'fd00::1',
  'fd00::1a': 'fd00::1a',
  'fd00::2': 'fd00::2',
  '203.0.113.1': '203.0.113.1',
  ' 203.0.113.2': '203.0.113.2',
  '203.0.113.2': '203.0.113.2',
  '2001:db8::1': '2001:db8::1',
};
const noAddresses = ['10.1.0', '10.1.0.256', 'fd00:::1', 'pear', ''];

const rangeCases: Readonly<Record<string, Cidr>> = {
  '198.51.100.9/26': { ip: '198.51.100.0', prefixLength: 26 },
  ' 198.051.100.0/026 ': { ip: '198.51.100.0', prefixLength: 26 },
  '100.64.0.0/16': { ip: '100.64.0.0', prefixLength: 16 },
  '0.0.0.0/0': { ip: '0.0.0.0', prefixLength: 0 },
  '2001:db8:a::/48': { ip: '2001:db8:a::', prefixLength: 48 },
  '::/0': { ip: '::', prefixLength: 0 },
};
/** Ranges that hold the node's own IP. */
const ownRanges = ['100.64.0.0', '2001:db8:a::'];

// ---- naive evaluation

const family = (ip: string): IPFamily => (ip.includes(':') ? 'IPv6' : 'IPv4');
const printed = (e: { ip: string; port: number }): string =>
  e.ip.includes(':') ? `[${e.ip}]:${e.port}` : `${e.ip}:${e.port}`;

interface World {
  readonly services: Map<string, Service>;
  readonly slices: Map<string, EndpointSlice>;
  zone: string | undefined;
}

interface Candidate extends SliceEndpoint {
  readonly endpoint: Endpoint;
}

function candidates(world: World, of: Service, name: string, protocol: Protocol, f: IPFamily): Candidate[] {
  const byAddress = new Map<string, Candidate>();
  const slices = [...world.slices.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const slice of slices) {
    if (slice.headless || slice.addressType !== f) continue;
    if (slice.serviceName !== of.name || slice.namespace !== of.namespace) continue;
    for (const port of slice.ports) {
      if (port.name !== name || port.protocol !== protocol || port.port === 0) continue;
      for (const e of slice.endpoints) {
        const ip = addressCases[e.address];
        if (ip === undefined || family(ip) !== f) continue;
        const local = e.nodeName === node;
        const endpoint = { ip, port: port.port, local, nodeUnknown: e.nodeName === undefined };
        const known = byAddress.get(printed(endpoint));
        const better =
          known === undefined ||
          (known.terminating && !e.terminating) ||
          (!known.terminating && !e.terminating && !known.ready && e.ready);
        if (better) byAddress.set(printed(endpoint), { ...e, endpoint });
      }
    }
  }
  return [...byAddress.keys()].sort().map((key) => byAddress.get(key)!);
}

interface Evaluation {
  readonly ports: ReadonlyMap<string, ServicePort>;
  readonly health: ReadonlyMap<string, HealthCheckPort>;
  /** Contested address → the names of its claimants, the owner first and the others sorted. */
  readonly contests: ReadonlyMap<string, readonly string[]>;
}

function naive(world: World): Evaluation {
  interface Draft {
    readonly service: Service;
    readonly portName: string;
    readonly any: boolean;
    readonly port: ServicePort;
  }
  const drafts: Draft[] = [];
  const health = new Map<string, HealthCheckPort>();
  for (const service of world.services.values()) {
    if (service.serviceProxyName !== undefined || service.type === 'ExternalName') continue;
    if (service.clusterIP === '' || service.clusterIP === 'None') continue;
    for (const f of familyNames) {
      const text =
        service.ipFamilies.length === 0
          ? service.clusterIP
          : service.clusterIPs.find((_, i) => service.ipFamilies[i] === f);
      const clusterIP = text === undefined ? undefined : addressCases[text];
      if (clusterIP === undefined || family(clusterIP) !== f) continue;

      const own = (texts: readonly string[]): string[] =>
        [
          ...new Set(texts.map((t) => addressCases[t]).filter((ip) => ip !== undefined && family(ip) === f)),
        ].sort() as string[];
      const vips = own(
        service.loadBalancerIngress.filter((i) => i.ipMode === '' || i.ipMode === 'VIP').map((i) => i.ip),
      );
      const externals = own(service.externalIPs);
      const internalLocal = service.internalTrafficPolicy === 'Local';
      const externalLocal =
        service.externalTrafficPolicy === 'Local' &&
        (['LoadBalancer', 'NodePort'].includes(service.type) || service.externalIPs.length > 0);

      let sourceRanges: Cidr[] | undefined;
      const given = service.loadBalancerSourceRanges.filter((t) => t.trim() !== '');
      if (given.length > 0) {
        sourceRanges = given
          .map((t) => rangeCases[t])
          .filter((r) => r !== undefined && family(r.ip) === f) as Cidr[];
        if (sourceRanges.some((r) => r.prefixLength === 0)) sourceRanges = undefined;
        else if (sourceRanges.some((r) => ownRanges.includes(r.ip))) {
          sourceRanges.push(...vips.map((ip) => ({ ip, prefixLength: f === 'IPv4' ? 32 : 128 })));
        }
      }

      for (const spec of service.ports) {
        const list = candidates(world, service, spec.name, spec.protocol, f);
        const ready = list.filter((c) => c.ready);
        const dying = list.filter((c) => !c.ready && c.serving && c.terminating);
        const any = ready.length + dying.length > 0;
        const accessible = spec.nodePort !== 0 || vips.length > 0 || externals.length > 0;
        const usesCluster = !internalLocal || accessible;
        const usesLocal = internalLocal || (externalLocal && accessible);

        let hinted = ready;
        const zone = world.zone;
        if (
          ready.length > 0 &&
          ready.every((c) => c.nodeHints.length > 0) &&
          ready.some((c) => c.nodeHints.includes(node))
        ) {
          hinted = ready.filter((c) => c.nodeHints.includes(node));
        } else if (
          zone !== undefined &&
          ready.every((c) => c.zoneHints.length > 0) &&
          ready.some((c) => c.zoneHints.includes(zone))
        ) {
          hinted = ready.filter((c) => c.zoneHints.includes(zone));
        }
        const C = usesCluster ? (hinted.length > 0 ? hinted : dying) : [];
        const isLocal = (c: Candidate): boolean => c.nodeName === node;
        const L = usesLocal ? (ready.some(isLocal) ? ready : dying).filter(isLocal) : [];

        const fallback = (local: boolean): Fallback =>
          !any ? 'reject' : local && L.length === 0 ? 'drop' : 'serve';
        const addresses: VirtualAddress[] = [];
        const add = (kind: VirtualAddress['kind'], ip: string, port: number): void => {
          if (addresses.some((a) => a.ip === ip)) return;
          const local = kind === 'ClusterIP' ? internalLocal : externalLocal;
          addresses.push({
            kind,
            ip,
            port,
            scope: kind === 'ClusterIP' ? 'internal' : 'external',
            policy: local ? 'Local' : 'Cluster',
            fallback: fallback(local),
            sourceRanges: kind === 'LoadBalancerIP' ? sourceRanges : undefined,
          });
        };
        add('ClusterIP', clusterIP, spec.port);
        for (const ip of vips) add('LoadBalancerIP', ip, spec.port);
        for (const ip of externals) add('ExternalIP', ip, spec.port);
        if (spec.nodePort !== 0) add('NodePort', '', spec.nodePort);

        const name = `${service.namespace}/${service.name}${spec.name === '' ? '' : `:${spec.name}`}`;
        drafts.push({
          service,
          portName: spec.name,
          any,
          port: {
            key: `${service.namespace}/${service.name}:${spec.name}/${spec.protocol}`,
            name,
            namespace: service.namespace,
            serviceName: service.name,
            family: f,
            protocol: spec.protocol,
            clusterIP,
            port: spec.port,
            addresses,
            clusterEndpoints: C.map((c) => c.endpoint),
            localEndpoints: L.map((c) => c.endpoint),
            affinitySeconds:
              service.sessionAffinity === 'ClientIP' ? (service.affinityTimeoutSeconds ?? 10800) : 0,
            servingEndpoints: list
              .filter((c) => spec.protocol === 'SCTP' || (spec.protocol === 'UDP' && (c.ready || c.serving)))
              .map((c) => printed(c.endpoint)),
          },
        });
      }
      if (service.type === 'LoadBalancer' && externalLocal && service.healthCheckNodePort !== 0) {
        const localReady = new Set<string>();
        for (const slice of world.slices.values()) {
          if (slice.serviceName !== service.name || slice.namespace !== service.namespace) continue;
          for (const { name, protocol } of slice.ports) {
            if (name === undefined) continue;
            for (const c of candidates(world, service, name, protocol, f))
              if (c.ready && c.nodeName === node) localReady.add(c.endpoint.ip);
          }
        }
        health.set(`${f} ${service.namespace}/${service.name}`, {
          service: `${service.namespace}/${service.name}`,
          namespace: service.namespace,
          name: service.name,
          port: service.healthCheckNodePort,
          localReadyEndpoints: localReady.size,
        });
      }
    }
  }

  // Section 10: who comes first in this order owns an address.
  drafts.sort((a, b) => {
    const rank = (d: Draft): string =>
      [
        d.any ? 0 : 1,
        d.service.creationTimestamp || '9',
        d.service.namespace,
        d.service.name,
        d.portName,
      ].join(' ');
    return rank(a) < rank(b) ? -1 : 1;
  });
  const claimants = new Map<string, string[]>();
  const ports = new Map<string, ServicePort>();
  for (const { port } of drafts) {
    const addresses = port.addresses.filter((a) => {
      const place = a.ip === '' ? `node port ${a.port}` : printed(a);
      const key = `${port.family} ${place}/${port.protocol}`;
      const names = claimants.get(key);
      if (names === undefined) claimants.set(key, [port.name]);
      else names.push(port.name);
      return names === undefined;
    });
    ports.set(`${port.family} ${port.key}`, { ...port, addresses });
  }
  const contests = [...claimants].filter(([, names]) => names.length > 1);
  return {
    ports,
    health,
    contests: new Map(contests.map(([key, [owner, ...rest]]) => [key, [owner!, ...rest.sort()]])),
  };
}

// ---- random objects

/** mulberry32: a small generator with a seed, so that a failure can be repeated. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

class Dice {
  private readonly next: () => number;

  constructor(seed: number) {
    this.next = generator(seed);
  }

  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  chance(p: number): boolean {
    return this.next() < p;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  some<T>(list: readonly T[], most: number): T[] {
    return Array.from({ length: this.below(most + 1) }, () => this.pick(list));
  }
}

const anyAddress = [...Object.keys(addressCases), ...noAddresses];
/** Blanks are trimmed from external IPs only. */
const anyEndpoint = anyAddress.filter((text) => !text.startsWith(' '));
const serviceNames = ['pear', 'quince', 'fig'];

function randomService(dice: Dice, name: string): Service {
  const dual = dice.chance(0.5);
  const ports = new Map(
    [0, 1, 2]
      .slice(0, 1 + dice.below(3))
      .map(() => ({
        name: dice.pick(['', 'web']),
        protocol: dice.pick(['TCP', 'UDP'] as const),
        port: dice.pick([80, 81]),
        nodePort: dice.pick([0, 0, 31000, 31001]),
      }))
      .map((port) => [`${port.name}/${port.protocol}`, port]),
  );
  const clusterIPs = dual
    ? [dice.pick(['10.1.0.1', '10.1.0.2']), dice.pick(['fd00::1', 'fd00::2', 'pear'])]
    : ['10.1.0.2'];
  const externalIPs = dice.some([...anyAddress, '203.0.113.1', '203.0.113.2', '2001:db8::1'], 2);
  return {
    namespace: 'default',
    name,
    uid: '',
    creationTimestamp: dice.pick(['2025-01-01T00:00:00Z', '2026-01-01T00:00:00Z', '']),
    serviceProxyName: dice.chance(0.05) ? 'other' : undefined,
    type: dice.pick(
      ['ClusterIP', 'NodePort', 'LoadBalancer', 'LoadBalancer', 'ExternalName'].slice(
        0,
        dice.chance(0.1) ? 5 : 4,
      ),
    ),
    clusterIP: dice.chance(0.05) ? 'None' : clusterIPs[0]!,
    clusterIPs,
    ipFamilies: dice.chance(0.1) ? [] : dual ? ['IPv4', 'IPv6'] : ['IPv4'],
    ports: [...ports.values()],
    externalIPs,
    loadBalancerIngress: dice
      .some(['203.0.113.1', '203.0.113.2', '2001:db8::1', 'garbage'], 2)
      .map((ip) => ({ ip, ipMode: dice.pick(['', 'VIP', 'Proxy']) })),
    loadBalancerSourceRanges: dice.some([...Object.keys(rangeCases), 'garbage', ' '], dice.pick([0, 0, 3])),
    sessionAffinity: dice.pick(['None', 'ClientIP']),
    affinityTimeoutSeconds: dice.pick([undefined, 600]),
    internalTrafficPolicy: dice.pick(['', 'Cluster', 'Local']),
    externalTrafficPolicy: dice.pick(['', 'Cluster', 'Local']),
    healthCheckNodePort: dice.pick([0, 32190]),
  };
}

function randomSlice(dice: Dice, name: string): EndpointSlice {
  const addressType = dice.pick(['IPv4', 'IPv4', 'IPv6', 'FQDN']);
  const hintKind = dice.below(4);
  return {
    namespace: 'default',
    name,
    serviceName: dice.chance(0.05) ? '' : dice.pick(serviceNames),
    headless: dice.chance(0.05),
    addressType,
    ports: dice.some(
      [
        { name: '', protocol: 'TCP', port: 9000 },
        { name: '', protocol: 'TCP', port: 9001 },
        { name: '', protocol: 'UDP', port: 9000 },
        { name: 'web', protocol: 'TCP', port: 9000 },
        { name: 'web', protocol: 'UDP', port: 953 },
        { name: 'web', protocol: 'TCP', port: 0 },
        { name: undefined, protocol: 'TCP', port: 9000 },
      ] as const,
      4,
    ),
    endpoints: dice.some(anyEndpoint, 6).map((address) => ({
      address,
      ready: dice.chance(0.6),
      serving: dice.chance(0.7),
      terminating: dice.chance(0.4),
      nodeName: dice.pick([node, 'birch', undefined]),
      zoneHints: hintKind === 1 || dice.chance(0.1) ? dice.pick([['a'], ['b'], ['a', 'b']]) : [],
      nodeHints: hintKind === 2 || dice.chance(0.1) ? dice.pick([[node], ['birch']]) : [],
    })),
    triggerTime: '',
  };
}

/** The same slice with a little difference, as controllers write them. */
function nudge(dice: Dice, slice: EndpointSlice): EndpointSlice {
  const endpoints = slice.endpoints.map((e) =>
    dice.chance(0.3) ? { ...e, ready: dice.chance(0.5), terminating: dice.chance(0.5) } : e,
  );
  return { ...slice, endpoints: dice.chance(0.2) ? endpoints.reverse() : endpoints };
}

function randomEvent(dice: Dice, world: World, model: ServiceModel): void {
  const kind = dice.below(10);
  if (kind < 4) {
    const name = dice.pick(serviceNames);
    const key = `default/${name}`;
    if (dice.chance(0.25)) world.services.delete(key);
    else world.services.set(key, randomService(dice, name));
    model.setService(key, world.services.get(key));
  } else if (kind < 9) {
    const name = dice.pick(['s1', 's2', 's3', 's4', 's5']);
    const key = `default/${name}`;
    const known = world.slices.get(key);
    if (dice.chance(0.2)) world.slices.delete(key);
    else if (known !== undefined && dice.chance(0.5)) world.slices.set(key, nudge(dice, known));
    else world.slices.set(key, randomSlice(dice, name));
    model.setEndpointSlice(key, world.slices.get(key));
  } else {
    world.zone = dice.pick([undefined, 'a', 'b', 'c']);
    model.setZone(world.zone);
  }
}

// ---- the comparison

/** A set as a list: the order of source ranges has no meaning. */
function comparable(ports: ReadonlyMap<string, ServicePort>): object {
  const entries = [...ports].map(([key, port]) => [
    key,
    {
      ...port,
      addresses: port.addresses.map((a) => ({
        ...a,
        sourceRanges:
          a.sourceRanges && [...new Set(a.sourceRanges.map((r) => `${r.ip}/${r.prefixLength}`))].sort(),
      })),
    },
  ]);
  return Object.fromEntries(entries) as object;
}

for (let seed = 1; seed <= seeds; seed++) {
  test(`random events, seed ${seed}`, () => {
    const dice = new Dice(seed);
    const world: World = { services: new Map(), slices: new Map(), zone: undefined };
    const model = new ServiceModel({
      nodeName: node,
      nodeIPs: nodeIps,
      families: familyNames,
      externalIPs: true,
    });
    const ports = new Map<string, ServicePort>();
    const health = new Map<string, HealthCheckPort>();
    const contests = new Map<string, readonly string[]>();
    for (let step = 0; step < steps; step++) {
      for (let events = 1 + dice.below(4); events > 0; events--) randomEvent(dice, world, model);
      const changes = model.takeChanges();
      assert.equal(model.hasChanges, false);
      for (const { family, upserted, removed } of changes.families) {
        for (const key of removed)
          assert.ok(ports.delete(`${family} ${key}`), `removed but never there: ${key}`);
        for (const port of upserted) {
          const id = `${family} ${port.key}`;
          const before = ports.get(id);
          assert.notDeepEqual(port, before, `handed out though nothing changed: ${id}`);
          for (const list of [
            'addresses',
            'clusterEndpoints',
            'localEndpoints',
            'servingEndpoints',
          ] as const) {
            let same = true;
            try {
              assert.deepEqual(port[list], before?.[list]);
            } catch {
              same = false;
            }
            assert.equal(port[list] === before?.[list], same, `identity of ${list}: ${id}`);
          }
          ports.set(id, port);
        }
      }
      for (const { family, service } of changes.healthChecksRemoved)
        assert.ok(health.delete(`${family} ${service}`));
      for (const { family, check } of changes.healthChecks) {
        assert.notDeepEqual(check, health.get(`${family} ${check.service}`));
        health.set(`${family} ${check.service}`, check);
      }
      for (const { family, address, owner, others } of changes.conflicts) {
        contests.set(`${family} ${address}`, [owner, ...[...others].sort()]);
      }
      const expected = naive(world);
      const at = `seed ${seed}, step ${step}`;
      assert.deepEqual(comparable(ports), comparable(expected.ports), at);
      assert.deepEqual(Object.fromEntries(health), Object.fromEntries(expected.health), at);
      for (const [address, names] of expected.contests)
        assert.deepEqual(contests.get(address), names, `${address} at ${at}`);
      for (const address of contests.keys()) if (!expected.contests.has(address)) contests.delete(address);
      const resync = new Map(
        familyNames.flatMap((f) => [...model.servicePorts(f)].map((port) => [`${f} ${port.key}`, port])),
      );
      assert.deepEqual(comparable(resync), comparable(ports), `resync at ${at}`);
    }
  });
}
