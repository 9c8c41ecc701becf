import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, Node, Service, ServiceCIDR } from '../objects.js';
import { StringTable } from '../strings.js';
import { recordBody, recordHead, recordLine } from './format.js';
import { codecs, type ObjectOf } from './objects.js';

const emptyService: Service = {
  namespace: 'a',
  name: 'web',
  uid: '',
  creationTimestamp: '',
  serviceProxyName: undefined,
  type: '',
  clusterIP: '',
  clusterIPs: [],
  ipFamilies: [],
  ports: [],
  externalIPs: [],
  loadBalancerIngress: [],
  loadBalancerSourceRanges: [],
  sessionAffinity: '',
  affinityTimeoutSeconds: undefined,
  internalTrafficPolicy: '',
  externalTrafficPolicy: '',
  healthCheckNodePort: 0,
};
const fullService: Service = {
  namespace: 'a',
  name: 'web',
  uid: '0d9ff26c-3a6b-4f1e-9a55-0c1f6c4b1b1e',
  creationTimestamp: '2026-01-01T00:00:00Z',
  serviceProxyName: 'other',
  type: 'LoadBalancer',
  clusterIP: '10.96.0.1',
  clusterIPs: ['10.96.0.1', 'fd00::1'],
  ipFamilies: ['IPv4', 'IPv6'],
  ports: [
    { name: '', protocol: 'SCTP', port: 80, nodePort: 0 },
    { name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 },
  ],
  externalIPs: ['198.51.100.1'],
  loadBalancerIngress: [
    { ip: '203.0.113.1', ipMode: 'Proxy' },
    { ip: '', ipMode: '' },
  ],
  loadBalancerSourceRanges: [' 10.0.0.0/8 '],
  sessionAffinity: 'ClientIP',
  affinityTimeoutSeconds: 0,
  internalTrafficPolicy: 'Local',
  externalTrafficPolicy: 'Cluster',
  healthCheckNodePort: 31000,
};
const endpoint = { address: '10.0.0.1', ready: true, serving: true, terminating: false };
const noHints = { nodeName: undefined, zoneHints: [], nodeHints: [] };
const emptySlice: EndpointSlice = {
  namespace: '',
  name: 'web-1',
  serviceName: '',
  headless: false,
  addressType: '',
  ports: [],
  endpoints: [],
  triggerTime: '',
};
const fullSlice: EndpointSlice = {
  namespace: 'a',
  name: 'web-1',
  serviceName: 'web',
  headless: true,
  addressType: 'IPv6',
  ports: [
    { name: undefined, protocol: 'TCP', port: 0 },
    { name: '', protocol: 'TCP', port: 8080 },
    { name: 'x', protocol: 'UDP', port: 1 },
  ],
  endpoints: [
    { ...endpoint, ...noHints },
    { ...endpoint, ...noHints, address: '', nodeName: '' },
    {
      address: 'fd00::7',
      ready: false,
      serving: true,
      terminating: true,
      nodeName: 'n1',
      zoneHints: ['z1', 'z2'],
      nodeHints: [],
    },
    {
      address: '10.0.0.3',
      ready: false,
      serving: false,
      terminating: false,
      nodeName: 'n2',
      zoneHints: [],
      nodeHints: ['n1'],
    },
    { ...endpoint, ...noHints, terminating: true },
  ],
  triggerTime: '2026-01-01T00:00:00.123456Z',
};
const emptyNode: Node = {
  name: 'n1',
  uid: '',
  addresses: [],
  podCIDRs: [],
  zone: undefined,
  taintKeys: [],
  deleting: false,
};
const fullNode: Node = {
  name: 'n1',
  uid: 'u',
  addresses: [
    { type: 'InternalIP', address: '192.0.2.1' },
    { type: 'Hostname', address: 'n1' },
  ],
  podCIDRs: ['10.1.0.0/24', 'fd01::/64'],
  zone: '',
  taintKeys: ['ToBeDeletedByClusterAutoscaler', ''],
  deleting: true,
};
const cidrs: ServiceCIDR = { name: 'kubernetes', cidrs: ['10.96.0.0/12', 'fd00::/112'] };

function cases<K extends keyof ObjectOf>(kind: K, ...objects: readonly ObjectOf[K][]): void {
  objects.forEach((object, i) => {
    test(`${kind} ${i + 1} comes back as it was`, () => {
      const line = recordLine(kind, 'a/web', object);
      assert.ok(line.endsWith('\n') && line.indexOf('\n') === line.length - 1, 'one line');
      const body = recordBody(line);
      assert.ok(body !== undefined);
      assert.deepEqual(codecs[kind].read(body, new StringTable()), object);
    });
  });
}
cases('Service', emptyService, fullService);
cases('EndpointSlice', emptySlice, fullSlice);
cases('Node', emptyNode, fullNode);
cases('ServiceCIDR', cidrs, { name: 'empty', cidrs: [] });

for (const key of ['a/web', 'web', 'a/"quoted"\\', 'ä/ö', 'line\nfeed']) {
  test(`key ${JSON.stringify(key)} is found without decoding the object`, () => {
    for (const gone of [false, true]) {
      const bytes = Buffer.from(`xx${recordLine('ServiceCIDR', key, gone ? undefined : cidrs)}`);
      assert.deepEqual(recordHead(bytes, 2, bytes.length - 1), { kind: 'ServiceCIDR', key, gone });
    }
  });
}

for (const line of [
  '',
  '[',
  '["Service"',
  '["Service",',
  '["Service","a',
  '["Service","a"',
  '["Pod","a",{}]',
  '{}',
  'x'.repeat(50),
]) {
  test(`${JSON.stringify(line)} is no record`, () => {
    assert.equal(recordHead(Buffer.from(line), 0, line.length), undefined);
  });
}
