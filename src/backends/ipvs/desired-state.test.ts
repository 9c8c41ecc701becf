import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IPVS_SVC_F } from '@kube-proxy-ts/netlink/ipvs';
import type { ServicePort } from '../../model/types.js';
import { addressText, readHostUint32 } from '../nft/keys.js';
import { elementsOf, desiredState, needsMark, serverId, type AddressPlan } from './desired-state.js';
import { schedulerNamed } from './servers/schedulers.js';
import { address, endpoint, L1, R1, servicePort } from './testing/service-ports.js';

const nodePortAddresses = ['100.64.10.11', '100.64.77.11'];

function desired(fields: Partial<ServicePort> = {}, mark = 0, scheduler = 'rr') {
  return desiredState(servicePort(fields), mark, {
    scheduler,
    traits: schedulerNamed(scheduler),
    nodePortAddresses,
  });
}

/** '10.96.0.1 tcp 80', as the sets have it. */
function keyText(key: string): string {
  const ip = addressText(key.slice(0, -8));
  const protocol = { 6: 'tcp', 17: 'udp', 132: 'sctp' }[key.charCodeAt(key.length - 8)] ?? '?';
  return `${ip} ${protocol} ${(key.charCodeAt(key.length - 4) << 8) | key.charCodeAt(key.length - 3)}`;
}

function elements(plan: AddressPlan | undefined): string[] {
  assert.ok(plan);
  return elementsOf(plan).map(({ set, key, value, comment }) =>
    [
      set,
      set.startsWith('source-ranges')
        ? `${addressText(key.slice(0, 4))} ${keyText(key.slice(4))}`
        : keyText(key),
      ...(value === undefined ? [] : [`0x${readHostUint32(value).toString(16)}`]),
      ...(comment === undefined ? [] : [`"${comment}"`]),
    ].join(' '),
  );
}

test('a cluster IP is one virtual server and one element', () => {
  const { services, nodePorts, byMark, hairpins } = desired();
  const [plan] = services.values();
  assert.deepEqual(elements(plan), ['service-ips 10.96.0.1 tcp 80 "shop/web"']);
  assert.deepEqual(plan?.server.key, { family: 'ip', protocol: 6, address: '10.96.0.1', port: 80 });
  assert.deepEqual(plan.server.settings, {
    scheduler: 'rr',
    flags: 0,
    timeoutSeconds: 0,
    clientPrefixLength: 32,
  });
  assert.deepEqual(plan.server.endpoints, [L1, R1]);
  assert.equal(nodePorts.size, 0);
  assert.equal(byMark, undefined);
  assert.equal(hairpins.size, 1, 'of the local endpoint');
});

test('ids are what the sets have as keys', () => {
  const [[id, plan] = []] = desired().services;
  assert.equal(id, plan?.server.id);
  assert.equal(id, serverId({ family: 'ip', protocol: 6, address: '10.96.0.1', port: 80 }));
  assert.equal(serverId({ family: 'ip', fwmark: 7 }), 'mark 7');
});

test('affinity, and what schedulers want, are flags', () => {
  const settings = (fields: Partial<ServicePort>, scheduler: string) =>
    [...desired(fields, 0, scheduler).services.values()][0]?.server.settings;
  assert.deepEqual(settings({ affinitySeconds: 10_800 }, 'rr'), {
    scheduler: 'rr',
    flags: IPVS_SVC_F.persistent,
    timeoutSeconds: 10_800,
    clientPrefixLength: 32,
  });
  assert.equal(settings({}, 'mh')?.flags, IPVS_SVC_F.schedulerFlag2);
  assert.equal(
    settings({ affinitySeconds: 1 }, 'sh')?.flags,
    IPVS_SVC_F.schedulerFlag1 | IPVS_SVC_F.persistent,
  );
});

test('a node port is a virtual server on each of the addresses that serve node ports', () => {
  const nodePort = address({ kind: 'NodePort', port: 31_080 });
  const { services, nodePorts } = desired({ addresses: [address(), nodePort], protocol: 'UDP' });
  assert.equal(services.size, 1);
  assert.deepEqual([...nodePorts.values()].flatMap(elements), [
    'service-ips 100.64.10.11 udp 31080 "shop/web"',
    'external-ips 100.64.10.11 udp 31080',
    'service-ips 100.64.77.11 udp 31080 "shop/web"',
    'external-ips 100.64.77.11 udp 31080',
  ]);
});

test('policy Local, external: outsiders meet the local endpoints, a mark leads others to all', () => {
  const vip = address({ kind: 'LoadBalancerIP', ip: '192.0.2.1', policy: 'Local', fallback: 'drop' });
  const port = { addresses: [address(), vip], localEndpoints: [L1] };
  assert.equal(needsMark(servicePort(port)), true);
  const { services, byMark } = desired(port, 0x6b700005);
  const plan = [...services.values()][1];
  assert.deepEqual(elements(plan), [
    'service-ips 192.0.2.1 tcp 80 "shop/web"',
    'local-ips 192.0.2.1 tcp 80',
    'short-circuits 192.0.2.1 tcp 80 0x6b700005',
    'dropped-local-ips 192.0.2.1 tcp 80',
  ]);
  assert.deepEqual(plan?.server.endpoints, [L1]);
  assert.deepEqual(byMark?.key, { family: 'ip', fwmark: 0x6b700005 });
  assert.deepEqual(byMark.endpoints, [L1, R1]);
});

test('affinity behind a mark is by hash: the one of IPVS would not translate the port', () => {
  const vip = address({ kind: 'LoadBalancerIP', ip: '192.0.2.1', policy: 'Local', fallback: 'drop' });
  const port = { addresses: [vip], localEndpoints: [L1], affinitySeconds: 600 };
  const { services, byMark } = desired(port, 0x6b700005);
  assert.deepEqual(
    [...services.values()].map(({ server }) => server.settings),
    [{ scheduler: 'rr', flags: IPVS_SVC_F.persistent, timeoutSeconds: 600, clientPrefixLength: 32 }],
  );
  assert.deepEqual(byMark?.settings, {
    scheduler: 'mh',
    flags: IPVS_SVC_F.schedulerFlag1,
    timeoutSeconds: 0,
    clientPrefixLength: 32,
  });
});

test('no mark where there is nothing to tell apart', () => {
  assert.equal(needsMark(servicePort()), false);
  const internal = address({ policy: 'Local' });
  assert.equal(needsMark(servicePort({ addresses: [internal] })), false);
  const external = address({ kind: 'ExternalIP', policy: 'Local', fallback: 'reject' });
  assert.equal(needsMark(servicePort({ addresses: [external], clusterEndpoints: [] })), false);
});

test('policy Local, internal: local endpoints for all', () => {
  const port = { addresses: [address({ policy: 'Local' })], localEndpoints: [L1] };
  const [plan] = desired(port).services.values();
  assert.deepEqual(plan?.server.endpoints, [L1]);
  assert.deepEqual(elements(plan), ['service-ips 10.96.0.1 tcp 80 "shop/web"']);
});

test('without endpoints: refused, by the rules too', () => {
  const [plan] = desired({
    addresses: [address({ fallback: 'reject' })],
    clusterEndpoints: [],
  }).services.values();
  assert.deepEqual(elements(plan), [
    'service-ips 10.96.0.1 tcp 80 "shop/web"',
    'rejected-ips 10.96.0.1 tcp 80',
  ]);
});

test('source ranges, each once', () => {
  const sourceRanges = [
    { ip: '198.51.100.0', prefixLength: 26 },
    { ip: '198.51.100.0', prefixLength: 26 },
    { ip: '203.0.113.9', prefixLength: 32 },
  ];
  const vip = address({ kind: 'LoadBalancerIP', ip: '192.0.2.1', sourceRanges });
  const [plan] = desired({ addresses: [vip] }).services.values();
  assert.deepEqual(elements(plan), [
    'service-ips 192.0.2.1 tcp 80 "shop/web"',
    'external-ips 192.0.2.1 tcp 80',
    'firewall-ips 192.0.2.1 tcp 80',
    'source-ranges-26 198.51.100.0 192.0.2.1 tcp 80',
    'source-ranges-32 203.0.113.9 192.0.2.1 tcp 80',
  ]);
  const [nobody] = desired({ addresses: [{ ...vip, sourceRanges: [] }] }).services.values();
  assert.equal(elements(nobody).at(-1), 'firewall-ips 192.0.2.1 tcp 80');
});

test('IPv6', () => {
  const v6 = desiredState(
    servicePort({
      family: 'IPv6',
      addresses: [address({ ip: 'fd00:96::1' })],
      clusterEndpoints: [endpoint('[fd61::5]:9000 local')],
    }),
    0,
    { scheduler: 'rr', traits: schedulerNamed('rr'), nodePortAddresses: [] },
  );
  const [plan] = v6.services.values();
  assert.deepEqual(plan?.server.key, { family: 'ip6', protocol: 6, address: 'fd00:96::1', port: 80 });
  assert.equal(plan.server.settings.clientPrefixLength, 128);
  assert.deepEqual(elements(plan), ['service-ips fd00:96::1 tcp 80 "shop/web"']);
  assert.equal([...v6.hairpins][0]?.length, 16 + 16 + 8);
});

test('a comment is not longer than the kernel takes', () => {
  const [plan] = desired({ name: `shop/${'w'.repeat(200)}` }).services.values();
  assert.ok(plan);
  assert.equal(elementsOf(plan)[0]?.comment?.length, 128);
});

test('an endpoint that keeps its address and moves to this node may meet itself', () => {
  const elsewhere = desired({ clusterEndpoints: [{ ...L1, local: false }] });
  const unknown = desired({ clusterEndpoints: [{ ...L1, local: false, nodeUnknown: true }] });
  const here = desired({ clusterEndpoints: [L1] });
  assert.equal(elsewhere.hairpins.size, 0);
  assert.equal(unknown.hairpins.size, 1);
  assert.deepEqual(here.hairpins, unknown.hairpins);
});
