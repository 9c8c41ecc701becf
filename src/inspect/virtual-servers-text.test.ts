import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORWARDING, IPVS_SVC_F, type RealServer, type VirtualServer } from '@kube-proxy-ts/netlink/ipvs';
import { PodNames } from './pod-names.js';
import { readVirtualServers, type IpvsReader, type ReadOptions } from './virtual-servers.js';
import { virtualServersText } from './virtual-servers-text.js';

function server(key: VirtualServer['key'], settings: Partial<VirtualServer['settings']> = {}): VirtualServer {
  return {
    key,
    settings: {
      scheduler: 'rr',
      flags: IPVS_SVC_F.hashed,
      timeoutSeconds: 0,
      clientPrefixLength: 32,
      ...settings,
    },
  };
}

function endpoint(
  address: string,
  port: number,
  weight: number,
  [activeConnections, inactiveConnections, persistentConnections = 0]: readonly number[],
  forwarding: number = FORWARDING.masquerade,
): RealServer {
  return {
    key: { family: address.includes(':') ? 'ip6' : 'ip', address, port },
    settings: { forwarding, weight, upperThreshold: 0, lowerThreshold: 0 },
    activeConnections: activeConnections ?? 0,
    inactiveConnections: inactiveConnections ?? 0,
    persistentConnections,
  };
}

const dns = { family: 'ip', protocol: 17, address: '10.96.0.10', port: 53 } as const;
const cart = { family: 'ip', protocol: 6, address: '10.96.0.2', port: 80 } as const;
const cart6 = { family: 'ip6', protocol: 6, address: 'fd00:96::2', port: 80 } as const;
const mark = { family: 'ip', fwmark: 0x6b700001 } as const;
const director = { family: 'ip', protocol: 6, address: '192.0.2.9', port: 443 } as const;

const kernel: IpvsReader = {
  listServices: () => [
    server(mark),
    server(dns),
    server(cart6, { scheduler: 'mh', flags: IPVS_SVC_F.schedulerFlag2 | IPVS_SVC_F.schedulerFlag1 }),
    server(director, { scheduler: 'wlc' }),
    server(cart, { scheduler: 'lc', flags: IPVS_SVC_F.persistent, timeoutSeconds: 10800 }),
  ],
  listDestinations: (key) => {
    if (key === dns) return [endpoint('10.61.1.10', 53, 1, [0, 7]), endpoint('10.61.1.9', 53, 1, [0, 5])];
    if (key === cart)
      return [endpoint('10.61.2.5', 8080, 1, [3, 12, 4]), endpoint('10.61.2.6', 8080, 0, [1, 0])];
    if (key === cart6) return [];
    if (key === mark) return [endpoint('10.61.2.5', 8080, 100, [0, 0])];
    return [endpoint('192.0.2.77', 443, 2, [0, 0], FORWARDING.directRouting)];
  },
};

const pods = new PodNames();
pods.add({
  metadata: { namespace: 'shop', labels: { 'kubernetes.io/service-name': 'cart' } },
  endpoints: [
    { addresses: ['10.61.2.5'], targetRef: { kind: 'Pod', namespace: 'shop', name: 'cart-6d8f-x2x7p' } },
    { addresses: ['10.61.2.6'], targetRef: { kind: 'Pod', name: 'cart-6d8f-9bq4t' } },
    { addresses: ['10.61.1.9'], targetRef: { kind: 'Node', name: 'alder' } },
    { addresses: ['10.61.1.8'] },
  ],
});

const options: ReadOptions = {
  isOurs: (key) => key !== director,
  readNames: (onServer) => {
    onServer(dns, 'kube-system/kube-dns:dns');
    onServer({ ...cart }, 'shop/cart');
    onServer(cart6, 'shop/cart');
    onServer({ ...mark }, 'shop/cart');
  },
  pods,
};

test('a table of virtual servers and endpoints, numbers in addresses in their order', () => {
  const expected = `
PROTO  VIRTUAL SERVER         SERVICE PORT, POD         SCHEDULER  WEIGHT  ACTIVE  INACTIVE  NOTES
TCP    10.96.0.2:80           shop/cart                 lc                      4        12  affinity 10800 s
       -> 10.61.2.5:8080      shop/cart-6d8f-x2x7p                      1       3        12  affinity of 4
       -> 10.61.2.6:8080      shop/cart-6d8f-9bq4t                      0       1         0  draining
UDP    10.96.0.10:53          kube-system/kube-dns:dns  rr                      0        12
       -> 10.61.1.9:53                                                  1       0         5
       -> 10.61.1.10:53                                                 1       0         7
TCP    192.0.2.9:443                                    wlc                     0         0  not kube-proxy's
       -> 192.0.2.77:443                                                2       0         0  route
       mark 0x6b700001        shop/cart                 rr                      0         0  for pods and this node
       -> 10.61.2.5:8080      shop/cart-6d8f-x2x7p                    100       0         0
TCP    [fd00:96::2]:80        shop/cart                 mh                      0         0  mh-fallback, mh-port, takes no new connections
`.trimStart();
  const text = virtualServersText(readVirtualServers(kernel, options));
  // Columns are as wide as their contents.
  const collapse = (table: string): string => table.replaceAll(/ {2,}/g, '  ');
  assert.equal(collapse(text), collapse(expected));
  const [head = '', first = ''] = text.split('\n');
  assert.equal(first.indexOf('shop/cart'), head.indexOf('SERVICE PORT'), 'columns are aligned');
  assert.equal(
    first.indexOf(' 12 ') + 3,
    head.indexOf('INACTIVE') + 'INACTIVE'.length,
    'numbers at the right',
  );
});

test('one namespace, one Service', () => {
  const names = (more: Partial<ReadOptions>): string[] =>
    readVirtualServers(kernel, { ...options, ...more }).map(({ servicePort }) => servicePort ?? '');
  assert.deepEqual(names({ namespace: 'shop' }), ['shop/cart', 'shop/cart', 'shop/cart']);
  assert.deepEqual(names({ service: 'kube-dns' }), ['kube-system/kube-dns:dns']);
  assert.deepEqual(names({ namespace: 'shop', service: 'kube-dns' }), []);
  assert.equal(names({}).length, 5);
});

test('a virtual server that goes meanwhile is left out', () => {
  const views = readVirtualServers(
    {
      listServices: () => [server(dns), server(cart)],
      listDestinations: (key) => {
        if (key === dns) throw Object.assign(new Error('gone'), { code: 'ESRCH' });
        return [];
      },
    },
    options,
  );
  assert.deepEqual(
    views.map(({ address }) => address),
    ['10.96.0.2'],
  );
});

test('JSON has everything, with traffic as numbers', () => {
  const counters = {
    connections: 5n,
    packetsIn: 50n,
    packetsOut: 40n,
    bytesIn: 5_000_000_000n,
    bytesOut: 4_000n,
    perSecond: { connections: 0n, packetsIn: 0n, packetsOut: 0n, bytesIn: 0n, bytesOut: 0n },
  };
  const [view] = readVirtualServers(
    {
      listServices: () => [{ ...server(cart), counters }],
      listDestinations: () => [{ ...endpoint('10.61.2.5', 8080, 1, [3, 12, 4]), counters }],
    },
    options,
  );
  const traffic = { connections: 5, packetsIn: 50, packetsOut: 40, bytesIn: 5_000_000_000, bytesOut: 4_000 };
  assert.deepEqual(JSON.parse(JSON.stringify(view)), {
    family: 'IPv4',
    protocol: 'TCP',
    address: '10.96.0.2',
    port: 80,
    servicePort: 'shop/cart',
    owner: 'kube-proxy',
    scheduler: 'rr',
    schedulerFlags: [],
    affinitySeconds: 0,
    traffic,
    endpoints: [
      {
        address: '10.61.2.5',
        port: 8080,
        pod: 'shop/cart-6d8f-x2x7p',
        weight: 1,
        state: 'serving',
        activeConnections: 3,
        inactiveConnections: 12,
        persistentConnections: 4,
        forwarding: 'masquerade',
        traffic,
      },
    ],
  });
});
