/** Needs a kernel with IPVS; Debian's has it (test/vm). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GenericConnection } from '../generic/index.js';
import { enterNetworkNamespace } from '../testing/namespace.js';
import {
  FORWARDING,
  IpvsConnection,
  IPVS_SVC_F,
  type IpvsCommand,
  type RealServerSettings,
  type VirtualServer,
} from './index.js';

function missingIpvs(): string | false {
  const generic = GenericConnection.open();
  try {
    return generic.resolveFamily('IPVS') === undefined ? 'this kernel has no IPVS' : false;
  } finally {
    generic.close();
  }
}

const skip = enterNetworkNamespace() || missingIpvs();

const plain = { scheduler: 'rr', flags: 0, timeoutSeconds: 0 } as const;
const servers: readonly VirtualServer[] = [
  {
    key: { family: 'ip', protocol: 6, address: '10.96.0.1', port: 443 },
    settings: { ...plain, clientPrefixLength: 32 },
  },
  {
    key: { family: 'ip', protocol: 17, address: '10.96.0.10', port: 53 },
    settings: {
      scheduler: 'lc',
      flags: IPVS_SVC_F.persistent,
      timeoutSeconds: 10_800,
      clientPrefixLength: 24,
    },
  },
  {
    key: { family: 'ip6', protocol: 132, address: 'fd00:96::1', port: 38412 },
    settings: { ...plain, clientPrefixLength: 128 },
  },
  { key: { family: 'ip', fwmark: 77 }, settings: { ...plain, clientPrefixLength: 32 } },
];

const byText = (list: readonly object[]): string[] => list.map((item) => JSON.stringify(item)).sort();
/** As the kernel tells it: with its own mark. */
const inForce = ({ key, settings }: VirtualServer): VirtualServer => ({
  key,
  settings: { ...settings, flags: settings.flags | IPVS_SVC_F.hashed },
});

test('virtual servers come, change and go', { skip }, () => {
  const ipvs = IpvsConnection.open();
  for (const server of servers) ipvs.addService(server);
  assert.deepEqual(byText(ipvs.listServices()), byText(servers.map(inForce)));

  const [first] = servers;
  assert.ok(first);
  assert.throws(
    () => {
      ipvs.addService(first);
    },
    { code: 'EEXIST' },
  );
  assert.throws(
    () => {
      ipvs.addService({
        key: { ...first.key, port: 1 },
        settings: { ...first.settings, scheduler: 'none such' },
      });
    },
    { code: 'ENOENT' },
  );
  const changed: VirtualServer = { key: first.key, settings: { ...first.settings, scheduler: 'sh' } };
  ipvs.changeService(changed);
  assert.deepEqual(byText(ipvs.listServices()), byText([changed, ...servers.slice(1)].map(inForce)));

  assert.deepEqual(ipvs.getService(first.key), inForce(changed));
  assert.equal(ipvs.getService({ ...first.key, port: 1 }), undefined);

  for (const { key } of servers) assert.equal(ipvs.deleteService(key), true);
  assert.equal(ipvs.deleteService(first.key), false, 'gone already');
  assert.deepEqual(ipvs.listServices(), []);
  ipvs.close();
});

test('many changes at once; what is refused is named, the rest is made', { skip }, () => {
  const ipvs = IpvsConnection.open();
  const [tcp, , v6] = servers;
  assert.ok(tcp && v6);
  const settings = { forwarding: FORWARDING.masquerade, weight: 1, upperThreshold: 0, lowerThreshold: 0 };
  const pod = (n: number) => ({ family: 'ip' as const, address: `10.61.${n >> 8}.${n & 255}`, port: 9000 });
  const commands: IpvsCommand[] = [
    { do: 'add service', server: tcp },
    { do: 'delete service', service: { ...tcp.key, family: 'ip', fwmark: 99 } },
    { do: 'add service', server: v6 },
    { do: 'add service', server: tcp },
  ];
  for (let n = 1; n <= 3000; n++) {
    commands.push({ do: 'add destination', service: tcp.key, destination: pod(n), settings });
  }
  commands.push({ do: 'delete destination', service: tcp.key, destination: pod(1) });
  assert.deepEqual(
    ipvs.executeAll(commands).map(({ index, error }) => [index, error.code]),
    [
      [1, 'ESRCH'],
      [3, 'EEXIST'],
    ],
  );
  assert.equal(ipvs.listServices().length, 2);
  assert.equal(ipvs.listDestinations(tcp.key).length, 2999);
  // Refusals without end do not get lost.
  const refused = ipvs.executeAll(commands.slice(5));
  assert.equal(refused.length, 3000);
  assert.ok(refused.every(({ error }) => error.code === 'EEXIST' || error.code === 'ENOENT'));
  assert.deepEqual(ipvs.executeAll([tcp, v6].map(({ key }) => ({ do: 'delete service', service: key }))), []);
  ipvs.close();
});

test('timeouts are set one by one, and counters begin at nothing', { skip }, () => {
  const ipvs = IpvsConnection.open();
  assert.deepEqual(ipvs.getTimeouts(), { tcpSeconds: 900, tcpFinSeconds: 120, udpSeconds: 300 });
  ipvs.setTimeouts({ tcpSeconds: 7200, udpSeconds: 0 });
  assert.deepEqual(ipvs.getTimeouts(), { tcpSeconds: 7200, tcpFinSeconds: 120, udpSeconds: 300 });
  const [tcp] = servers;
  assert.ok(tcp);
  ipvs.addService(tcp);
  const [listed] = ipvs.listServices({ counters: true });
  assert.equal(listed?.counters?.connections, 0n);
  assert.equal(listed.counters.perSecond.bytesOut, 0n);
  ipvs.zeroCounters(tcp.key);
  ipvs.zeroCounters();
  ipvs.deleteService(tcp.key);
  assert.match(ipvs.getInfo().version, /^1\.2\.\d+$/);
  assert.ok(ipvs.getInfo().connectionTableSize >= 256);
  ipvs.close();
});

test('real servers come, change and go', { skip }, () => {
  const ipvs = IpvsConnection.open();
  const settings: RealServerSettings = {
    forwarding: FORWARDING.masquerade,
    weight: 1,
    upperThreshold: 9,
    lowerThreshold: 3,
  };
  for (const server of servers.slice(0, 3)) {
    const { family } = server.key;
    const keys = (family === 'ip' ? ['10.61.1.1', '10.61.1.2'] : ['fd00:61::1', 'fd00:61::2']).map(
      (address) => ({ family, address, port: 8080 }),
    );
    const [first, second] = keys;
    assert.ok(first && second);
    ipvs.addService(server);
    ipvs.addDestination(server.key, first, settings);
    ipvs.addDestination(server.key, second, settings);
    ipvs.changeDestination(server.key, second, { ...settings, weight: 0 });
    const idle = { activeConnections: 0, inactiveConnections: 0, persistentConnections: 0 };
    assert.deepEqual(
      byText(ipvs.listDestinations(server.key)),
      byText([
        { key: first, settings, ...idle },
        { key: second, settings: { ...settings, weight: 0 }, ...idle },
      ]),
    );
    assert.equal(ipvs.deleteDestination(server.key, first), true);
    assert.equal(ipvs.deleteDestination(server.key, first), false, 'gone already');
    assert.equal(ipvs.listDestinations(server.key).length, 1);
    ipvs.deleteService(server.key);
  }
  ipvs.close();
});
