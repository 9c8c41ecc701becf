/**
 * What it costs to find stale entries in a full connection tracking table, and what the event loop notices of it: the
 * figures of docs/conntrack.md. Needs root (it works in a network namespace of its own).
 * Arguments: number of entries (240000; a quarter of them UDP); the kernel's limit is not changed.
 */
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { ConntrackCleaner, type CleanupPass } from '../src/conntrack/cleaner.js';
import { createLogger } from '../src/log/logger.js';
import type { Protocol, ServicePort } from '../src/model/types.js';
import { type ConntrackEntry, createConntrackEntries } from '@kube-proxy-ts/netlink/testing';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';

const [count = '240000'] = process.argv.slice(2);
const entries = Number(count);
const endpoints = 100;
const services = 20;
const targetPort = 5353;

const clusterIP = (service: number): string => `10.96.0.${service + 1}`;
const endpointIP = (endpoint: number): string => `10.61.${endpoint >> 8}.${endpoint & 255}`;

/** Every fourth is UDP; clients, services and endpoints take turns. */
function* flows(): Generator<ConntrackEntry> {
  for (let i = 0; i < entries; i++) {
    const udp = i % 4 === 0;
    yield {
      protocol: udp ? 17 : 6,
      client: `10.62.${(i >> 8) & 255}.${i & 255}`,
      clientPort: 1024 + (i >> 16) * 7,
      destination: clusterIP((i >> 2) % services),
      destinationPort: udp ? 53 : 80,
      endpoint: endpointIP((i >> 3) % endpoints),
      endpointPort: targetPort,
      ...(udp ? {} : { state: 3 }),
    };
  }
}

function service(number: number, protocol: Protocol, without: readonly number[]): ServicePort {
  const list = Array.from({ length: endpoints }, (_, i) => i).filter((i) => !without.includes(i));
  return {
    key: `bench/s${number}:p/${protocol}`,
    name: `bench/s${number}:p`,
    namespace: 'bench',
    serviceName: `s${number}`,
    family: 'IPv4',
    protocol,
    clusterIP: clusterIP(number),
    port: protocol === 'UDP' ? 53 : 80,
    addresses: [
      {
        kind: 'ClusterIP',
        ip: clusterIP(number),
        port: protocol === 'UDP' ? 53 : 80,
        scope: 'internal',
        policy: 'Cluster',
        fallback: 'serve',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints: list.map((i) => ({
      ip: endpointIP(i),
      port: targetPort,
      local: false,
      nodeUnknown: false,
    })),
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: protocol === 'UDP' ? list.map((i) => `${endpointIP(i)}:${targetPort}`) : [],
  };
}

const skip = enterNetworkNamespace();
if (skip !== false) throw new Error(skip);
let start = performance.now();
createConntrackEntries(flows());
process.stdout.write(`${entries} entries made in ${Math.round(performance.now() - start)} ms\n\n`);

const looks: CleanupPass[] = [];
const reconciler = new ConntrackCleaner({
  family: 'IPv4',
  nodePortAddresses: () => [],
  log: createLogger({ format: 'text', verbosity: 0 }),
  onCleaned: (look) => looks.push(look),
});
process.stdout.write(
  '| what happens | protocol | walks | read | deleted | took, ms | processor, ms | longest turn of the event loop, ms |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n',
);

async function measure(what: string, change: () => void): Promise<void> {
  await reconciler.idle();
  looks.length = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const before = process.cpuUsage();
  start = performance.now();
  change();
  await reconciler.idle();
  const { user, system } = process.cpuUsage(before);
  delay.disable();
  for (const { protocol, walks, read, deleted, seconds } of looks) {
    const fields = [
      what,
      protocol,
      walks,
      read,
      deleted,
      (seconds * 1000).toFixed(0),
      ((user + system) / 1000).toFixed(0),
      (delay.max / 1e6).toFixed(1),
    ];
    process.stdout.write(`| ${fields.join(' | ')} |\n`);
  }
}

const all = Array.from({ length: services }, (_, i) => i);
await measure('start: every entry is right', () => {
  reconciler.changed(all.map((number) => service(number, 'UDP', [])));
});
await measure('start', () => {
  reconciler.changed(all.map((number) => service(number, 'TCP', [])));
});
await measure('one endpoint leaves', () => {
  reconciler.changed([service(0, 'UDP', [0])]);
});
await measure('one endpoint leaves', () => {
  reconciler.changed([service(0, 'TCP', [0])]);
});
await measure('20 endpoints leave, of all services', () => {
  reconciler.changed(all.map((number) => service(number, 'UDP', all)));
});
await measure('20 endpoints leave, of all services', () => {
  reconciler.changed(all.map((number) => service(number, 'TCP', all)));
});
await reconciler.close();
