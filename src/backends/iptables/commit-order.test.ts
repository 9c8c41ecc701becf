/**
 * A packet meets table nat in one state and table filter in a later one: whatever is committed in between, it is treated as
 * the Service was before the change, or as it is afterwards.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { silentLogger } from '../../log/logger.js';
import type { Endpoint, ServicePort, VirtualAddress } from '../../model/types.js';
import type { IptablesOptions } from './rules/layout.js';
import { RuleSet } from './rules/rule-set.js';
import { foundIn } from './tool/reading.js';
import { Saved } from './tool/saved.js';
import { fate, FakeTool, fatesDuring, nodeIP, type TableState } from './testing/commits.js';
import type { Packet } from './testing/walk.js';
import { nothingWritten, RuleWriter } from './writer.js';

const options: IptablesOptions = {
  family: 'IPv4',
  masqueradeMark: 0x4000,
  masqueradeAll: false,
  detector: { kind: 'cidr', cidr: { ip: '10.61.0.0', prefixLength: 16 } },
  nodePortAddresses: 'all',
  dropInvalid: true,
};

const local: Endpoint = { ip: '10.61.1.31', port: 9000, local: true, nodeUnknown: false };
const remote: Endpoint = { ip: '10.61.2.41', port: 9000, local: false, nodeUnknown: false };
/** A pod on this node's network that listens at the number of the node port. */
const onHost: Endpoint = { ip: nodeIP, port: 31_050, local: true, nodeUnknown: false };

type Kind = VirtualAddress['kind'];

interface Setup {
  readonly kinds?: readonly Kind[];
  readonly endpoints: readonly Endpoint[];
  readonly name?: string;
  readonly policy?: 'Cluster' | 'Local';
  readonly ranges?: VirtualAddress['sourceRanges'];
  /** Of its addresses, the last byte. */
  readonly at?: number;
}

const prefixOf = { ClusterIP: '10.177.0', ExternalIP: '203.0.113', LoadBalancerIP: '192.0.2', NodePort: '' };

function servicePort({
  kinds = ['ClusterIP', 'NodePort', 'LoadBalancerIP'],
  endpoints,
  name = 'orchard/pear',
  policy = 'Cluster',
  ranges,
  at = 50,
}: Setup): ServicePort {
  const localEndpoints = endpoints.filter((endpoint) => endpoint.local);
  const addresses = kinds.map((kind): VirtualAddress => {
    const of = kind === 'ClusterIP' ? 'Cluster' : policy;
    return {
      kind,
      ip: kind === 'NodePort' ? '' : `${prefixOf[kind]}.${at}`,
      port: kind === 'NodePort' ? 31_000 + at : 80,
      scope: kind === 'ClusterIP' ? 'internal' : 'external',
      policy: of,
      fallback:
        endpoints.length === 0 ? 'reject' : of === 'Local' && localEndpoints.length === 0 ? 'drop' : 'serve',
      sourceRanges: kind === 'LoadBalancerIP' ? ranges : undefined,
    };
  });
  return {
    key: `${name}/TCP`,
    name,
    namespace: 'orchard',
    serviceName: 'pear',
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: `10.177.0.${at}`,
    port: 80,
    addresses,
    clusterEndpoints: endpoints,
    localEndpoints,
    affinitySeconds: 0,
    servingEndpoints: [],
  };
}

const sources: Readonly<Record<string, Partial<Packet>>> = {
  pod: { source: '10.61.1.20', interface: 'veth9' },
  node: { source: nodeIP, fromNode: true },
  outside: { source: '198.51.100.7', interface: 'eth0' },
  stranger: { source: '203.0.113.200', interface: 'eth0' },
};

const destinations: Readonly<Record<string, readonly [ip: string, port: number]>> = {
  'cluster IP': ['10.177.0.50', 80],
  'load balancer IP': ['192.0.2.50', 80],
  'external IP': ['203.0.113.50', 80],
  'node port': [nodeIP, 31_050],
};

function* packets(): Generator<readonly [name: string, packet: Packet]> {
  for (const [from, source] of Object.entries(sources)) {
    for (const [to, [destination, port]] of Object.entries(destinations)) {
      const packet = {
        source: '',
        destination,
        protocol: 'tcp',
        port,
        toNode: destination === nodeIP,
        ...source,
      };
      yield [`${from} to ${to}`, packet as Packet];
    }
  }
}

class Lab {
  readonly tool: FakeTool;
  readonly rules = new RuleSet(options, { bpf: true, reject: true, randomFully: true, counters: new Set() });
  private readonly writer: RuleWriter;

  constructor(kind: 'nf_tables' | 'legacy' = 'nf_tables', tool = new FakeTool(kind)) {
    this.tool = tool;
    this.writer = new RuleWriter(tool, options, silentLogger);
  }

  change(ports: readonly ServicePort[], removed: readonly string[] = []): Promise<void> {
    for (const key of removed) this.rules.change(key, undefined);
    for (const port of ports) this.rules.change(port.key, port);
    return this.writer.writeChanges(this.rules, -Infinity, nothingWritten());
  }

  async compare(ports: readonly ServicePort[]): Promise<void> {
    for (const port of ports) this.rules.change(port.key, port);
    const saved = await Saved.read(this.tool.save());
    await this.writer.compareAndWrite(this.rules, foundIn(saved, options), nothingWritten());
  }

  deleteDeferred(): Promise<void> {
    return this.writer.deleteDeferred(this.rules, Infinity, nothingWritten());
  }
}

function union(...sets: readonly ReadonlySet<string>[]): Set<string> {
  return new Set(sets.flatMap((set) => [...set]));
}

/**
 * Every packet that is under way during these states fares as before or as afterwards.
 * @param serving who may be reached without translation
 */
function assertOldOrNew(
  states: readonly TableState[],
  from: number,
  serving: readonly ServicePort[],
  end: TableState | undefined = states.at(-1),
): void {
  const begin = states[from];
  assert.ok(begin && end);
  for (const [name, packet] of packets()) {
    const allowed = union(fate(begin.nat, begin.filter, packet), fate(end.nat, end.filter, packet));
    const listens = serving.some(({ clusterEndpoints }) =>
      clusterEndpoints.some(({ ip, port }) => ip === packet.destination && port === packet.port),
    );
    if (listens) allowed.add('passes untranslated');
    for (const found of fatesDuring(states, from, packet))
      assert.ok(allowed.has(found), `${name}: ${found}, where only ${[...allowed].join(' or ')} is right`);
  }
}

const range = [{ ip: '198.51.100.0', prefixLength: 24 }];
const other = { name: 'orchard/plum' };

const changes: Readonly<Record<string, readonly [before: Setup[], after: Setup[]]>> = {
  'from none to two endpoints': [[{ endpoints: [] }], [{ endpoints: [local, remote] }]],
  'from two endpoints to none': [[{ endpoints: [local, remote] }], [{ endpoints: [] }]],
  'from no local endpoint to one': [
    [{ endpoints: [remote], policy: 'Local' }],
    [{ endpoints: [local, remote], policy: 'Local' }],
  ],
  'from one local endpoint to none': [
    [{ endpoints: [local, remote], policy: 'Local' }],
    [{ endpoints: [remote], policy: 'Local' }],
  ],
  'policy Cluster becomes Local without local endpoints': [
    [{ endpoints: [remote] }],
    [{ endpoints: [remote], policy: 'Local' }],
  ],
  'policy Local without local endpoints becomes Cluster': [
    [{ endpoints: [remote], policy: 'Local' }],
    [{ endpoints: [remote] }],
  ],
  'source ranges are taken away': [[{ endpoints: [remote], ranges: range }], [{ endpoints: [remote] }]],
  'source ranges are given': [[{ endpoints: [remote] }], [{ endpoints: [remote], ranges: range }]],
  'the addresses move from a Service without endpoints to one with': [
    [{ endpoints: [] }],
    [{ ...other, endpoints: [local, remote] }],
  ],
  'the addresses move from a Service with endpoints to one without': [
    [{ endpoints: [local, remote] }],
    [{ ...other, endpoints: [] }],
  ],
  'an address moves from a Service with source ranges to one without': [
    [
      { endpoints: [remote], ranges: range },
      { ...other, endpoints: [local], kinds: ['ExternalIP'] },
    ],
    [
      { endpoints: [remote], kinds: ['ClusterIP', 'NodePort'] },
      { ...other, endpoints: [local], kinds: ['ExternalIP', 'LoadBalancerIP'] },
    ],
  ],
  'a pod on the network of this node, at the number of the node port, is the first': [
    [{ endpoints: [] }],
    [{ endpoints: [onHost] }],
  ],
};

for (const [title, [before, after]] of Object.entries(changes)) {
  const old = before.map(servicePort);
  const now = after.map(servicePort);
  const gone = old.map(({ key }) => key).filter((key) => now.every((port) => port.key !== key));

  describe(title, () => {
    test('a change', async () => {
      const lab = new Lab();
      await lab.change(old);
      await lab.deleteDeferred();
      const from = lab.tool.states.length - 1;
      await lab.change(now, gone);
      // What comes next waits until these packets are through.
      const settled = lab.tool.states.length - 1;
      const reference = new Lab();
      await reference.change(now);
      assertOldOrNew(lab.tool.states, from, now, reference.tool.latest);
      await lab.deleteDeferred();
      assertOldOrNew(lab.tool.states, settled, now);
      assert.deepEqual(sorted(lab.tool.latest), sorted(reference.tool.latest));
    });

    test('a process that starts over', async () => {
      const first = new Lab();
      await first.change(old);
      await first.deleteDeferred();
      const from = first.tool.states.length - 1;
      const lab = new Lab('nf_tables', first.tool);
      await lab.compare(now);
      const settled = lab.tool.states.length - 1;
      const reference = new Lab();
      await reference.change(now);
      assertOldOrNew(lab.tool.states, from, now, reference.tool.latest);
      await lab.deleteDeferred();
      assertOldOrNew(lab.tool.states, settled, now);
      for (const table of ['nat', 'filter'] as const)
        for (const [name, rules] of reference.tool.latest[table])
          assert.deepEqual(lab.tool.latest[table].get(name), rules, name);
    });
  });
}

function sorted({ nat, filter }: TableState): unknown {
  return [nat, filter].map((chains) => [...chains].sort(([a], [b]) => (a < b ? -1 : 1)));
}

test('what serves its own address is not refused a moment longer', async () => {
  const lab = new Lab();
  await lab.change([servicePort({ endpoints: [] })]);
  await lab.change([servicePort({ endpoints: [onHost] })]);
  const packet: Packet = {
    source: '198.51.100.7',
    destination: nodeIP,
    protocol: 'tcp',
    port: 31_050,
    toNode: true,
  };
  const { nat, filter } = lab.tool.latest;
  assert.deepEqual(
    [...fate(nat, filter, packet)].map((one) => one.split(' ')[0]),
    ['DNAT'],
  );
});

test('in a large change in several runs every address is always somebody’s', async () => {
  const lab = new Lab();
  const count = 2_500;
  const many = (name: string, shift: number): ServicePort[] =>
    Array.from({ length: count }, (_, number) => {
      const at = (number + shift) % count;
      const ip = `10.177.${at >> 8}.${at & 255}`;
      const port = servicePort({
        name: `${name}/s${number}`,
        kinds: ['ClusterIP'],
        endpoints: [local, remote, { ...remote, port: 9001 }],
      });
      return { ...port, clusterIP: ip, addresses: port.addresses.map((address) => ({ ...address, ip })) };
    });
  const old = many('old', 0);
  await lab.change(old);
  for (const [title, next] of [
    ['addresses change hands', many('old', 700)],
    ['all Services are new', many('new', 0)],
  ] as const) {
    const from = lab.tool.states.length - 1;
    const gone = [...lab.rules.keys()].filter((key) => next.every((port) => port.key !== key));
    await lab.change(next, gone);
    const states = lab.tool.states.slice(from);
    assert.ok(states.length > 3, 'several runs');
    for (let at = 0; at < count; at += 97) {
      const packet: Packet = {
        source: '10.61.1.20',
        destination: `10.177.${at >> 8}.${at & 255}`,
        protocol: 'tcp',
        port: 80,
      };
      for (const found of fatesDuring(states, 0, packet))
        assert.match(found, /^DNAT/, `${title}: ${packet.destination}`);
    }
  }
});
