/**
 * The IPVS dataplane with the kernel's nftables and a stand-in for IPVS, in a namespace of its own: what is written, in
 * which order, and what is left alone. With the kernel's IPVS: test/vm, and the conformance cases.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { describe, test, type TestContext } from 'node:test';
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { describeKey } from '@kube-proxy-ts/netlink/ipvs';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { IPFamily, ServicePort } from '../../model/types.js';
import { TableDamagedError, type DataplaneOptions } from '../backend.js';
import { World } from '../testing/world.js';
import { IpvsFamily, type IpvsOptions } from './family.js';
import { leaseSets } from './table/leases.js';
import { connectionKey, FakeInterface, FakeIpvs } from './testing/fake-kernel.js';
import { address, L1, L2, R1, R2, servicePort } from './testing/service-ports.js';

const skip = enterNetworkNamespace() || missingNft();
const table = 'kube-proxy-ipvs';

class FaultyConnection extends NftablesConnection {
  refuse: (batch: Batch) => boolean = () => false;
  commits = 0;

  static override open(): FaultyConnection {
    return new FaultyConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  override commit(batch: Batch): void {
    if (this.refuse(batch))
      throw new NetlinkError({ operation: 'commit (refused by the test)', errno: constants.errno.ENOMEM });
    super.commit(batch);
    this.commits++;
  }
}

const nodeAddresses = ['100.64.10.11', '2001:db8:a::11', '127.0.0.1', '::1', 'fe80::1'];

class Lab {
  readonly ipvs = new FakeIpvs();
  readonly addresses = new FakeInterface();
  readonly nft = FaultyConnection.open();
  family: IpvsFamily;

  constructor(
    private readonly options: Partial<DataplaneOptions & IpvsOptions> = {},
    context?: TestContext,
  ) {
    this.family = this.start();
    context?.after(() => {
      this.clear();
      this.nft.close();
    });
    this.clear();
  }

  /** Another process over the same kernel. */
  start(options: Partial<DataplaneOptions & IpvsOptions> = {}): IpvsFamily {
    const all = { ...this.options, ...options };
    const family = all.family ?? 'IPv4';
    this.family = new IpvsFamily(
      { nft: this.nft, ipvs: this.ipvs, observer: this.ipvs, addresses: this.addresses },
      {
        family,
        masqueradeMark: 0x4000,
        masqueradeAll: false,
        detector: {
          kind: 'cidr',
          cidr:
            family === 'IPv4' ? { ip: '10.61.0.0', prefixLength: 16 } : { ip: 'fd61::', prefixLength: 48 },
        },
        nodePortAddresses: 'all',
        ...all,
      },
      {
        scheduler: 'rr',
        excludeCIDRs: [],
        localAddresses: nodeAddresses.filter((ip) => ip.includes(':') === (family === 'IPv6')),
        ...all,
      },
    );
    return this.family;
  }

  async apply(upserted: readonly ServicePort[], removed: readonly string[] = []) {
    return await this.family.apply({ family: this.options.family ?? 'IPv4', upserted, removed });
  }

  clear(): void {
    const family = this.options.family === 'IPv6' ? 'ip6' : 'ip';
    if (!this.nft.listTables(family).some(({ name }) => name === table)) return;
    const batch = new Batch(family, table);
    batch.deleteTable();
    this.nft.commit(batch);
  }

  /** 'set key value', sorted, without leases. Marks, which are numbers without a meaning, as the first address that leads to them. */
  elements(): string[] {
    const family = this.options.family === 'IPv6' ? 'ip6' : 'ip';
    const lines: string[] = [];
    for (const { name } of this.nft.listSets(family, table)) {
      if (leaseSets.includes(name)) continue;
      this.nft.listElements(family, table, name, (key, value, { comment }) => {
        const text = Buffer.isBuffer(value) ? ` ${this.markName(family, value.readUInt32LE())}` : '';
        lines.push(`${name} ${key.toString('hex')}${text}${comment === undefined ? '' : ` ${comment}`}`);
      });
    }
    return lines.sort();
  }

  servers(): string[] {
    const family = this.options.family === 'IPv6' ? 'ip6' : 'ip';
    return this.ipvs
      .text()
      .map((line) => line.replace(/fwmark (\d+)/, (_, mark) => this.markName(family, Number(mark))))
      .sort();
  }

  private markName(family: 'ip' | 'ip6', mark: number): string {
    const keys: string[] = [];
    new FaultyReader(family).each((key, value) => {
      if (value === mark) keys.push(key);
    });
    return `mark of ${keys.sort()[0] ?? 'nobody'}`;
  }

  takeLogs(): string[] {
    return [...this.ipvs.takeLog(), ...this.addresses.takeLog()];
  }
}

/** Reads the marks over a connection of its own: one dump at a time. */
class FaultyReader {
  constructor(private readonly family: 'ip' | 'ip6') {}

  each(onMark: (key: string, mark: number) => void): void {
    const connection = NftablesConnection.open();
    connection.listElements(this.family, table, 'short-circuits', (key, value) => {
      if (Buffer.isBuffer(value)) onMark(key.toString('hex'), value.readUInt32LE());
    });
    connection.close();
  }
}

const vip = address({ kind: 'LoadBalancerIP', ip: '192.0.2.1', port: 443 });
const nodePort = address({ kind: 'NodePort', port: 31_080 });

test('a Service with all kinds of addresses', { skip }, async (context) => {
  const lab = new Lab({}, context);
  const report = await lab.family.resync([servicePort({ addresses: [address(), vip, nodePort] })]);
  assert.deepEqual(report.failures, []);
  assert.deepEqual(lab.servers(), [
    'tcp 10.96.0.1:80 rr → 10.61.1.31:9000, 10.61.2.41:9000',
    'tcp 100.64.10.11:31080 rr → 10.61.1.31:9000, 10.61.2.41:9000',
    'tcp 192.0.2.1:443 rr → 10.61.1.31:9000, 10.61.2.41:9000',
  ]);
  assert.deepEqual([...lab.addresses.addresses].sort(), ['10.96.0.1', '192.0.2.1']);
  // The port of a VIP alone makes no process of the node reachable.
  assert.match(
    run('nft', 'list', 'chain', 'ip', table, 'services'),
    /ip daddr @bound-ips meta nfproto @refusal-lease reject/,
  );
});

test('addresses that nobody has are dropped only when all others are served', async (context) => {
  const lab = new Lab({}, context);
  const sizes: number[] = [];
  lab.nft.refuse = () => {
    const listed = run('nft', 'list', 'tables').includes(table)
      ? run('nft', 'list', 'set', 'ip', table, 'service-cidrs')
      : '';
    if (listed.includes('10.96.0.0')) sizes.push(lab.servers().length);
    return false;
  };
  lab.family.setServiceCIDRs([{ ip: '10.96.0.0', prefixLength: 16 }]);
  await lab.family.resync([servicePort({ addresses: [address()] })]);
  // One more transaction, so that the last one of the adoption is seen, too.
  lab.family.setServiceCIDRs([]);
  assert.deepEqual(sizes, [1]);
});

test('what is right is not written again: a restart writes nothing', { skip }, async (context) => {
  const lab = new Lab({}, context);
  const local = { ...vip, policy: 'Local' as const, sourceRanges: [{ ip: '10.0.0.0', prefixLength: 8 }] };
  const ports = [
    servicePort({ addresses: [address(), local, nodePort], localEndpoints: [L1] }),
    servicePort({
      name: 'dns/dns:udp',
      protocol: 'UDP',
      addresses: [address({ ip: '10.96.0.10', port: 53 })],
      affinitySeconds: 600,
    }),
  ];
  lab.family.setServiceCIDRs([{ ip: '10.96.0.0', prefixLength: 16 }]);
  await lab.family.resync(ports);
  const [elements, servers] = [lab.elements(), lab.servers()];
  lab.takeLogs();
  const { commits } = lab.nft;
  const restarted = lab.start();
  restarted.setServiceCIDRs([{ ip: '10.96.0.0', prefixLength: 16 }]);
  const report = await restarted.resync(ports);
  assert.deepEqual(
    { ...report, kernelMs: 0 },
    {
      transactions: 0,
      elementsAdded: 0,
      elementsDeleted: 0,
      kernelMs: 0,
      failures: [],
      released: [],
    },
  );
  assert.equal(lab.nft.commits, commits + 1, 'it renews what a living process holds');
  assert.deepEqual(lab.takeLogs(), []);
  assert.deepEqual([lab.elements(), lab.servers()], [elements, servers]);
});

test(
  'a new port of an old address answers after the new addresses of the same change',
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([servicePort()]);
    const reported: string[] = [];
    const executeAll = lab.ipvs.executeAll.bind(lab.ipvs);
    lab.ipvs.executeAll = (commands) => {
      const list = [...commands];
      for (const command of list)
        if ('server' in command) reported.push(`${command.do} ${describeKey(command.server.key)}`);
      return executeAll(list);
    };
    const change = lab.addresses.change.bind(lab.addresses);
    lab.addresses.change = (changes) => {
      for (const { do: what, ip } of changes) reported.push(`${what} ${ip}`);
      return change(changes);
    };
    const later = servicePort({ name: 'shop/more', addresses: [address({ port: 81 }), nodePort] });
    const fresh = servicePort({ name: 'shop/fresh', addresses: [address({ ip: '10.96.0.2' })] });
    assert.deepEqual((await lab.apply([later, fresh])).failures, []);
    assert.deepEqual(reported, [
      'add service tcp 10.96.0.2:80',
      'add 10.96.0.2',
      'add service tcp 10.96.0.1:81',
      'add service tcp 100.64.10.11:31080',
    ]);
  },
);

test(
  'affinity behind a mark without its scheduler: the Service is reported, and served by address',
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    lab.ipvs.missingSchedulers.add('mh');
    const local = { ...vip, policy: 'Local' as const };
    const port = servicePort({ addresses: [local], localEndpoints: [L1], affinitySeconds: 600 });
    const report = await lab.family.resync([port]);
    assert.deepEqual(
      report.failures.map(({ servicePort: name, error }) => [name, /modprobe ip_vs_mh/.test(error.message)]),
      [['shop/web', true]],
    );
    assert.deepEqual(lab.servers(), ['tcp 192.0.2.1:443 rr flags 1 600 s → 10.61.1.31:9000']);
    lab.ipvs.missingSchedulers.clear();
    assert.deepEqual((await lab.apply([port])).failures, []);
    assert.deepEqual(lab.servers(), [
      'ip mark of c00002010600000001bb0000 mh flags 8 → 10.61.1.31:9000, 10.61.2.41:9000',
      'tcp 192.0.2.1:443 rr flags 1 600 s → 10.61.1.31:9000',
    ]);
  },
);

test('a change writes what changed', { skip }, async (context) => {
  const lab = new Lab({}, context);
  const others = Array.from({ length: 50 }, (_, i) =>
    servicePort({ name: `other/s${i}`, addresses: [address({ ip: `10.96.7.${i}` })] }),
  );
  await lab.family.resync([servicePort({ addresses: [address(), nodePort] }), ...others]);
  lab.takeLogs();
  const report = await lab.apply([
    servicePort({ addresses: [address(), nodePort], clusterEndpoints: [L1, R1, R2] }),
  ]);
  assert.deepEqual(lab.takeLogs(), [
    'add real server 10.61.3.42 port 9000 of tcp 10.96.0.1:80',
    'add real server 10.61.3.42 port 9000 of tcp 100.64.10.11:31080',
  ]);
  assert.equal(report.elementsAdded, 2);
  assert.equal(report.elementsDeleted, 0);
});

test(
  'rules come first, then virtual servers, then addresses; and the other way round',
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([]);
    const order: string[] = [];
    lab.nft.refuse = () => {
      order.push('rules');
      return false;
    };
    const executeAll = lab.ipvs.executeAll.bind(lab.ipvs);
    lab.ipvs.executeAll = (commands) => {
      order.push('servers');
      return executeAll(commands);
    };
    const change = lab.addresses.change.bind(lab.addresses);
    lab.addresses.change = (changes) => {
      order.push('addresses');
      return change(changes);
    };
    await lab.apply([servicePort()]);
    // What tells packets to the address from those to nobody's goes in with the address.
    assert.deepEqual(order.splice(0), ['rules', 'servers', 'rules', 'addresses']);
    await lab.apply([], ['shop/web/TCP']);
    // Refused; weight 0; deleted since nobody is connected; the address; what stood for the address.
    assert.deepEqual(order, ['rules', 'servers', 'servers', 'addresses', 'rules']);
    assert.deepEqual([lab.servers(), [...lab.addresses.addresses]], [[], []]);
    await lab.family.deleteDeferred(Infinity);
    assert.deepEqual(lab.elements(), []);
  },
);

test(
  'an endpoint that keeps its address and moves to this node gets its hairpin element, and loses it',
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    const elsewhere = { ...L1, local: false };
    const hairpins = (): number => lab.elements().filter((line) => line.startsWith('hairpin')).length;
    await lab.family.resync([servicePort({ clusterEndpoints: [elsewhere] })]);
    assert.equal(hairpins(), 0);
    await lab.apply([servicePort({ clusterEndpoints: [{ ...elsewhere, nodeUnknown: true }] })]);
    assert.equal(hairpins(), 1);
    await lab.apply([servicePort({ clusterEndpoints: [L1] })]);
    assert.equal(hairpins(), 1);
    await lab.apply([servicePort({ clusterEndpoints: [elsewhere] })]);
    await lab.family.deleteDeferred(Infinity);
    assert.equal(hairpins(), 0);
  },
);

test('endpoints and Services that go keep their connections', { skip }, async (context) => {
  const lab = new Lab({}, context);
  await lab.family.resync([servicePort()]);
  const web = { family: 'ip', protocol: 6, address: '10.96.0.1', port: 80 } as const;
  const at = (endpoint: typeof L1) =>
    connectionKey(web, { family: 'ip', address: endpoint.ip, port: endpoint.port });
  lab.ipvs.connections.set(at(L1), [1, 0]);
  await lab.apply([servicePort({ clusterEndpoints: [R1] })]);
  assert.deepEqual(lab.servers(), ['tcp 10.96.0.1:80 rr → 10.61.1.31:9000 weight 0, 10.61.2.41:9000']);

  // The Service goes; so does the idle endpoint, and new connections are refused by the rules.
  await lab.apply([], ['shop/web/TCP']);
  await lab.family.deleteDeferred(Infinity);
  assert.deepEqual(lab.servers(), ['tcp 10.96.0.1:80 rr → 10.61.1.31:9000 weight 0']);
  assert.deepEqual([...lab.addresses.addresses], ['10.96.0.1']);
  assert.deepEqual(lab.elements(), ['bound-ips 0a600001']);

  // Another process takes over the task.
  await lab.start().resync([]);
  assert.deepEqual(lab.servers(), ['tcp 10.96.0.1:80 rr → 10.61.1.31:9000 weight 0']);
  assert.deepEqual(lab.elements(), ['bound-ips 0a600001']);
  lab.family.maintain();
  assert.equal(lab.servers().length, 1, 'as long as there is a connection');
  lab.ipvs.connections.clear();
  lab.family.maintain();
  assert.deepEqual([lab.servers(), [...lab.addresses.addresses], lab.elements()], [[], [], []]);
});

test('of many that drain, the housekeeping looks at some, in turn', { skip }, async (context) => {
  const lab = new Lab({}, context);
  const ports = Array.from({ length: 2_500 }, (_, at) =>
    servicePort({
      name: `shop/s${at}`,
      addresses: [address({ ip: `10.96.${at >> 8}.${at & 255}` })],
      clusterEndpoints: [L1],
    }),
  );
  await lab.family.resync(ports);
  for (const { key } of lab.ipvs.listServices())
    lab.ipvs.connections.set(connectionKey(key, { family: 'ip', address: '10.61.1.31', port: 9000 }), [1, 0]);
  await lab.apply(
    [],
    ports.map(({ key }) => key),
  );
  const left = (): number => lab.ipvs.listServices().length;
  lab.family.maintain();
  assert.equal(left(), 2_500);
  lab.ipvs.connections.clear();
  const counts = [1, 2, 3].map(() => {
    lab.family.maintain();
    return left();
  });
  assert.deepEqual(counts, [1_500, 500, 0]);
  assert.deepEqual([...lab.addresses.addresses], []);
});

test('virtual servers of others are left alone', { skip }, async (context) => {
  const lab = new Lab({ excludeCIDRs: [{ ip: '10.96.9.0', prefixLength: 24 }] }, context);
  const settings = { scheduler: 'wlc', flags: 0, timeoutSeconds: 0, clientPrefixLength: 32 };
  const theirs = (ip: string, port: number) =>
    ({
      do: 'add service',
      server: { key: { family: 'ip', protocol: 6, address: ip, port }, settings },
    }) as const;
  lab.ipvs.executeAll([
    theirs('198.51.100.1', 443),
    theirs('100.64.10.11', 8443),
    { do: 'add service', server: { key: { family: 'ip', fwmark: 7 }, settings } },
    { do: 'add service', server: { key: { family: 'ip6', fwmark: 0x6b700001 }, settings } },
    theirs('10.96.9.1', 80),
    // Those are ours, or upstream's: their address is on the interface.
    theirs('10.96.8.1', 80),
    { do: 'add service', server: { key: { family: 'ip', fwmark: 0x6b700009 }, settings } },
  ]);
  lab.addresses.addresses.add('10.96.8.1').add('10.96.9.1');
  await lab.family.resync([servicePort({ clusterEndpoints: [] })]);
  await lab.family.deleteDeferred(Infinity);
  const rest = [
    'ip fwmark 7 wlc → ',
    `ip6 fwmark 1802502145 wlc → `,
    'tcp 10.96.0.1:80 rr → ',
    'tcp 10.96.9.1:80 wlc → ',
    'tcp 100.64.10.11:8443 wlc → ',
    'tcp 198.51.100.1:443 wlc → ',
  ];
  assert.deepEqual(lab.ipvs.text(), rest);
  assert.deepEqual([...lab.addresses.addresses], ['10.96.0.1']);
});

test(
  "a Service's address goes before a node port; when it goes, the node port is served",
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    const external = address({ kind: 'ExternalIP', ip: '100.64.10.11', port: 31_080 });
    const byNodePort = servicePort({ addresses: [nodePort], clusterEndpoints: [R2] });
    const byAddress = servicePort({ name: 'shop/date', addresses: [external], clusterEndpoints: [L1] });
    for (const ports of [
      [byNodePort, byAddress],
      [byAddress, byNodePort],
    ]) {
      await lab.family.resync(ports);
      assert.deepEqual(lab.servers(), ['tcp 100.64.10.11:31080 rr → 10.61.1.31:9000']);
      await lab.apply([], ['shop/date/TCP']);
      assert.deepEqual(lab.servers(), ['tcp 100.64.10.11:31080 rr → 10.61.3.42:9000']);
      await lab.apply([byAddress]);
      assert.deepEqual(lab.servers(), ['tcp 100.64.10.11:31080 rr → 10.61.1.31:9000']);
      assert.deepEqual(
        [...lab.addresses.addresses],
        [],
        "the node's own addresses are not put on kube-ipvs0",
      );
    }
  },
);

test('addresses of the node come and go', { skip }, async (context) => {
  const lab = new Lab({}, context);
  await lab.family.resync([servicePort({ addresses: [address(), vip, nodePort] })]);
  lab.takeLogs();
  lab.family.setLocalAddresses(['100.64.10.11', '100.64.77.11', '192.0.2.1', '127.0.0.1']);
  const servers = (ips: readonly string[]) =>
    ips.map((ip) => `tcp ${ip} rr → 10.61.1.31:9000, 10.61.2.41:9000`).sort();
  assert.deepEqual(
    lab.servers(),
    servers(['10.96.0.1:80', '100.64.10.11:31080', '100.64.77.11:31080', '192.0.2.1:31080', '192.0.2.1:443']),
  );
  assert.deepEqual([...lab.addresses.addresses], ['10.96.0.1'], 'another interface has the other one');
  lab.family.setLocalAddresses(['100.64.77.11']);
  assert.deepEqual(lab.servers(), servers(['10.96.0.1:80', '100.64.77.11:31080', '192.0.2.1:443']));
  assert.deepEqual([...lab.addresses.addresses].sort(), ['10.96.0.1', '192.0.2.1']);
});

test('only some addresses serve node ports', { skip }, async (context) => {
  const lab = new Lab({ nodePortAddresses: ['100.64.77.11'] }, context);
  await lab.family.resync([servicePort({ addresses: [nodePort] })]);
  assert.deepEqual(lab.servers(), ['tcp 100.64.77.11:31080 rr → 10.61.1.31:9000, 10.61.2.41:9000']);
  lab.family.setLocalAddresses(['100.64.99.1']);
  lab.family.setNodePortAddresses(['100.64.88.11']);
  assert.deepEqual(lab.servers(), ['tcp 100.64.88.11:31080 rr → 10.61.1.31:9000, 10.61.2.41:9000']);
});

test(
  'a look for damage takes small turns, and our own changes meanwhile are no damage',
  { skip },
  async (context) => {
    const lab = new Lab({}, context);
    const many = (from: number): ServicePort[] =>
      Array.from({ length: 1_000 }, (_, at) =>
        servicePort({
          name: `shop/s${from + at}`,
          addresses: [address({ ip: `10.96.${at >> 8}.${at & 255}`, port: 80 + from })],
        }),
      );
    await lab.family.resync(many(0));
    let turns = 0;
    const count = (): void => {
      turns++;
      next = setImmediate(count);
    };
    let next = setImmediate(count);
    const look = lab.family.check({ addresses: true });
    await lab.apply(
      many(1),
      many(0).map(({ key }) => key),
    );
    await look;
    clearImmediate(next);
    assert.ok(turns > 20, String(turns));
    await lab.family.check({ addresses: true });
    lab.ipvs.executeAll([
      { do: 'delete service', service: { family: 'ip', protocol: 6, address: '10.96.0.7', port: 81 } },
    ]);
    await assert.rejects(lab.family.check({ addresses: false }), /deleted virtual server/);
  },
);

test('many node ports follow the addresses of the node in several turns', { skip }, async (context) => {
  const lab = new Lab({}, context);
  const count = 900;
  const ports = Array.from({ length: count }, (_, at) =>
    servicePort({ name: `shop/s${at}`, addresses: [address({ kind: 'NodePort', port: 30_000 + at })] }),
  );
  await lab.family.resync(ports);
  lab.family.setLocalAddresses(['100.64.10.11', '100.64.77.11']);
  const served = (): number => lab.servers().filter((line) => line.includes('100.64.77.11:')).length;
  assert.ok(served() < count / 2, String(served()));
  // A change in between is made with the new addresses.
  await lab.apply([{ ...(ports[count - 1] ?? servicePort()), clusterEndpoints: [R2] }]);
  let calls = 0;
  while ((lab.family.deferredDueAt ?? Infinity) <= performance.now() && calls < 100) {
    await lab.family.deleteDeferred(performance.now());
    calls++;
  }
  assert.ok(calls >= 3, String(calls));
  assert.equal(served(), count);
});

describe('refusals', () => {
  test('one service port that IPVS refuses is named, the others go in', { skip }, async (context) => {
    const lab = new Lab({}, context);
    const bad = servicePort({ name: 'shop/bad', addresses: [address({ ip: '10.96.0.2' })] });
    lab.ipvs.refuses = (words) => words.includes('10.96.0.2');
    const report = await lab.family.resync([servicePort(), bad]);
    assert.deepEqual(
      report.failures.map(({ servicePort: name, error }) => [
        name,
        error instanceof NetlinkError && error.code,
      ]),
      [['shop/bad', 'EINVAL']],
    );
    assert.deepEqual(lab.servers(), ['tcp 10.96.0.1:80 rr → 10.61.1.31:9000, 10.61.2.41:9000']);
    lab.ipvs.refuses = () => false;
    assert.deepEqual((await lab.apply([bad])).failures, []);
    assert.equal(lab.servers().length, 2);
  });

  test('one service port whose rules are refused is named, the others go in', { skip }, async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([]);
    const ports = Array.from({ length: 9 }, (_, i) =>
      servicePort({ name: `shop/s${i}`, addresses: [address({ ip: `10.96.0.${i + 1}` })] }),
    );
    lab.nft.refuse = ({ writer }) => writer.bytes().includes('shop/s4');
    const report = await lab.apply(ports);
    assert.deepEqual(
      report.failures.map(({ servicePort: name }) => name),
      ['shop/s4'],
    );
    assert.equal(lab.servers().length, 8);
    lab.nft.refuse = () => false;
    assert.deepEqual((await lab.apply(ports)).failures, []);
    assert.equal(lab.servers().length, 9);
    assert.deepEqual((await lab.start().resync(ports)).elementsAdded, 0);
  });

  test(
    'what somebody else did to a virtual server, its endpoints or addresses is noticed and put right',
    {
      skip,
    },
    async (context) => {
      const lab = new Lab({}, context);
      const ports = [servicePort({ clusterEndpoints: [L1, L2] })];
      await lab.family.resync(ports);
      const [server] = lab.ipvs.listServices();
      assert.ok(server);
      const service = server.key;
      const destination = { family: 'ip', address: L1.ip, port: L1.port } as const;
      const settings = { forwarding: 0, weight: 1, upperThreshold: 0, lowerThreshold: 0 };
      const stranger = { family: 'ip', address: '10.61.9.9', port: 9000 } as const;
      const deeds: readonly (readonly [what: RegExp, deed: () => unknown])[] = [
        [/took endpoint/, () => lab.ipvs.executeAll([{ do: 'delete destination', service, destination }])],
        [
          /took endpoint/,
          () =>
            lab.ipvs.executeAll([
              { do: 'change destination', service, destination, settings: { ...settings, weight: 0 } },
            ]),
        ],
        [
          /gave .* endpoint 10\.61\.9\.9 9000/,
          () => lab.ipvs.executeAll([{ do: 'add destination', service, destination: stranger, settings }]),
        ],
        [
          /changed virtual server/,
          () =>
            lab.ipvs.executeAll([
              {
                do: 'change service',
                server: { key: service, settings: { ...server.settings, scheduler: 'lc' } },
              },
            ]),
        ],
        [
          /took address/,
          () => {
            lab.addresses.addresses.clear();
          },
        ],
      ];
      const right = lab.servers();
      for (const [what, deed] of deeds) {
        await lab.family.check({ addresses: true });
        deed();
        await assert.rejects(lab.family.check({ addresses: true }), what);
        await lab.family.resync(ports);
        assert.deepEqual([lab.servers(), [...lab.addresses.addresses]], [right, ['10.96.0.1']], String(what));
      }
      // A weight that somebody gave is theirs.
      lab.ipvs.executeAll([
        { do: 'change destination', service, destination, settings: { ...settings, weight: 7 } },
      ]);
      await lab.family.check({ addresses: true });
    },
  );

  test('a virtual server that somebody deleted is noticed and put back', { skip }, async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([servicePort()]);
    const [server] = lab.ipvs.listServices();
    assert.ok(server);
    lab.ipvs.executeAll([{ do: 'delete service', service: server.key }]);
    await assert.rejects(lab.family.check({ addresses: true }), TableDamagedError);
    await lab.family.resync([servicePort()]);
    assert.equal(lab.servers().length, 1);
    await lab.family.check({ addresses: true });
    // Or at the next change.
    lab.ipvs.executeAll([{ do: 'delete service', service: server.key }]);
    assert.deepEqual((await lab.apply([servicePort({ clusterEndpoints: [L2] })])).failures, []);
    assert.deepEqual(lab.servers(), ['tcp 10.96.0.1:80 rr → 10.61.1.32:9000']);
  });

  test('a table that somebody deleted is put back', { skip }, async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([servicePort()]);
    lab.clear();
    await assert.rejects(lab.apply([servicePort({ name: 'shop/new' })]), TableDamagedError);
    await lab.family.resync([servicePort()]);
    assert.equal(lab.elements().length, 3);
  });

  test('a table of our name that is laid out otherwise is replaced in one go', { skip }, async (context) => {
    const lab = new Lab({}, context);
    await lab.family.resync([servicePort()]);
    run('nft', 'add', 'chain', 'ip', table, 'old');
    const { commits } = lab.nft;
    await lab.start().resync([servicePort()]);
    assert.equal(lab.nft.commits, commits + 1);
    assert.doesNotMatch(run('nft', 'list', 'table', 'ip', table), /chain old/);
    assert.equal(lab.elements().length, 3);
  });
});

describe('random changes', () => {
  for (const family of ['IPv4', 'IPv6'] as const satisfies readonly IPFamily[]) {
    for (const seed of [1, 2, 3]) {
      test(
        `${family}, seed ${seed}: as if built anew, and a restart writes nothing`,
        { skip },
        async (context) => {
          const random = new Random(seed);
          const world = new World(random, family);
          const lab = new Lab({ family }, context);
          await lab.family.resync([]);
          for (let step = 0; step < 60; step++) {
            const { upserted, removed } = world.step();
            const report = await lab.apply(upserted, removed);
            assert.deepEqual(report.failures, []);
            if (random.below(3) === 0) await lab.family.deleteDeferred(Infinity);
            if (step % 12 !== 11) continue;
            await lab.family.deleteDeferred(Infinity);
            const incremental = [lab.elements(), lab.servers(), [...lab.addresses.addresses].sort()];
            lab.takeLogs();
            const again = await lab.start().resync(world.ports.values());
            assert.deepEqual([again.elementsAdded, again.elementsDeleted, lab.takeLogs()], [0, 0, []]);
            const fresh = new Lab({ family });
            await fresh.family.resync(world.ports.values());
            assert.deepEqual(
              [fresh.elements(), fresh.servers(), [...fresh.addresses.addresses].sort()],
              incremental,
            );
            fresh.nft.close();
            // The new table replaced that of the lab, marks included.
            await lab.start().resync(world.ports.values());
          }
        },
      );
    }
  }
});

describe('what holds only while somebody keeps it up to date', { skip }, () => {
  for (const [family, nft, ip] of [
    ['IPv4', 'ip', '10.96.0.1'],
    ['IPv6', 'ip6', 'fd96::1'],
  ] as const) {
    const secondsLeft = (set: string): number => {
      const text = run('nft', 'list', 'set', nft, table, set);
      const [, minutes, seconds] = /expires (?:(\d+)m)?(?:(\d+)s)?/.exec(text) ?? [];
      return Number(minutes ?? 0) * 60 + Number(seconds ?? 0);
    };
    /** Of a connection from this host to a process that listens at the address, for which the Service stands. */
    const outcome = async (): Promise<string> => {
      const socket = connect({ host: ip, port: 80 });
      try {
        await once(socket, 'connect');
        return 'connected';
      } catch (error) {
        return (error as NodeJS.ErrnoException).code ?? String(error);
      } finally {
        socket.destroy();
      }
    };

    test(`${family}: refusals end soon after the process`, async (context) => {
      run('ip', 'link', 'set', 'lo', 'up');
      run('ip', 'address', 'replace', ip, 'dev', 'lo');
      const server = createServer().listen(80, ip);
      await once(server, 'listening');
      context.after(() => {
        server.close();
        run('ip', 'address', 'del', ip, 'dev', 'lo');
        run('nft', 'delete', 'table', nft, table);
      });
      const lab = new Lab({ family });
      const rejected = servicePort({
        family,
        addresses: [address({ ip, fallback: 'reject' })],
        clusterEndpoints: [],
      });
      await lab.family.resync([rejected]);
      assert.equal(await outcome(), 'ECONNREFUSED');
      assert.ok(secondsLeft('refusal-lease') > 590 && secondsLeft('mark-lease') > 590);

      lab.family.close();
      assert.ok(secondsLeft('refusal-lease') <= 5 && secondsLeft('mark-lease') > 50);
      assert.equal(await outcome(), 'ECONNREFUSED', 'a successor has some seconds');
      const end = performance.now() + 8_000;
      while ((await outcome()) !== 'connected') assert.ok(performance.now() < end, 'still refused');
    });

    test(`${family}: and begin again with the next one`, async (context) => {
      const lab = new Lab({ family }, context);
      await lab.family.resync([]);
      run('nft', 'flush', 'set', nft, table, 'refusal-lease');
      await lab.start().resync([]);
      assert.ok(secondsLeft('refusal-lease') > 590);
    });
  }
});
