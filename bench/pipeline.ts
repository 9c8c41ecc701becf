/**
 * The program's own pipeline in one process, fed with the bytes of the API server: decode → model → dataplane →
 * kernel, in a network namespace of its own. Run as root:
 *
 *     node --expose-gc dist/bench/pipeline.js [services] [endpoints per service]
 *
 * Prints one JSON object (PipelineResult).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DataplaneOptions } from '../src/backends/backend.js';
import { NftablesFamily } from '../src/backends/nftables/family.js';
import { Health } from '../src/health/health.js';
import type { WatchEvent } from '../src/sources/kube/decode/decoded.js';
import type { EndpointSlice, Service } from '../src/sources/objects.js';
import { endpointSlices, services, type Resource } from '../src/sources/kube/resources.js';
import { StringTable } from '../src/sources/strings.js';
import { silentLogger } from '../src/log/logger.js';
import { createMetrics } from '../src/metrics/metrics.js';
import { ServiceModel } from '../src/model/model.js';
import { NETLINK_NETFILTER, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { ClusterState } from '../src/app/cluster-state.js';
import { SyncLoop } from '../src/sync/sync-loop.js';
import { clusterObjects } from '../test/apiserver/generate.js';
import { encodeObject, envelope, watchFrame } from '../test/apiserver/protobuf.js';
import type { Json } from './api-client.js';
import { bareBatch } from './netlink-batch.js';
import { percentile } from './percentile.js';

export interface PipelineResult {
  readonly services: number;
  readonly endpoints: number;
  /** From the end of the lists to the kernel's last acknowledgement, milliseconds: model, data plane and kernel. */
  readonly coldMs: number;
  /** Before it: the lists' bytes decoded and taken into the model, milliseconds. The program does it while they arrive. */
  readonly readMs: number;
  /** Processor time of all threads in both: what remains true on a busy machine. */
  readonly coldCpuMs: number;
  /** Of it, in the kernel. */
  readonly coldKernelMs: number;
  readonly transactions: number;
  /** The longest of them, milliseconds: the time for which nobody else could change any rules. */
  readonly longestMs: number;
  readonly elements: number;
  /** The same elements in one bare netlink batch (encode and kernel), median of three in this run. */
  readonly bareMs: number;
  /** From the bytes of a watch event to the kernel's acknowledgement, milliseconds; 600 changes. */
  readonly changeP50: number;
  readonly changeP99: number;
  /** The kernel refused nothing and did not write more than one transaction per change. */
  readonly changeTransactions: number;
  /** What a restart does first: the kernel's table read and compared, nothing to write; milliseconds. */
  readonly resyncMs: number;
}

const changes = 600;

/** Knows how long its longest commit took. */
class TimedConnection extends NftablesConnection {
  longestMs = 0;

  static override open(): TimedConnection {
    return new TimedConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  override commit(...args: Parameters<NftablesConnection['commit']>): void {
    const start = performance.now();
    super.commit(...args);
    this.longestMs = Math.max(this.longestMs, performance.now() - start);
  }
}

/** A watch frame as the API server sends it. */
function frame(type: string, object: Json): { kind: string; bytes: Buffer } {
  const kind = String(object['kind']);
  const raw = encodeObject(kind, object);
  return { kind, bytes: watchFrame(type, envelope(String(object['apiVersion']), kind, raw)) };
}

function feeder<T>(resource: Resource<T>, deliver: (key: string, object: T | undefined) => void) {
  const decoder = resource.codec('protobuf', new StringTable()).watch();
  const onEvent = (event: WatchEvent<T>): void => {
    if (event.type === 'ADDED' || event.type === 'MODIFIED') deliver(event.item.key, event.item.object);
    else if (event.type === 'DELETED') deliver(event.item.key, undefined);
    else throw new Error(`unexpected event ${event.type}`);
  };
  return (bytes: Buffer): void => {
    decoder.push(bytes, onEvent);
  };
}

async function main(serviceCount: number, endpointCount: number): Promise<PipelineResult> {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);

  const frames = [];
  for (const object of clusterObjects({ services: serviceCount, endpoints: endpointCount, nodes: 100 })) {
    frames.push(
      frame('ADDED', { ...object, metadata: { ...(object['metadata'] as Json), resourceVersion: '1' } }),
    );
  }

  const bare: number[] = [];
  const bareConnection = NftablesConnection.open();
  for (let i = 0; i < 3; i++) {
    const { encodeMs, commitMs } = bareBatch(bareConnection, `bare-${i}`, serviceCount, endpointCount);
    bare.push(encodeMs + commitMs);
  }
  bareConnection.close();
  globalThis.gc?.();

  let synced = 0;
  let acknowledged = 0;
  const state = new ClusterState('node-0', {
    changed: () => {
      loop.request();
    },
    nodeChanged: () => undefined,
    serviceCIDRsChanged: () => undefined,
    synced: () => undefined,
  });
  const model = new ServiceModel({
    nodeName: 'node-0',
    nodeIPs: {},
    families: ['IPv4'],
    externalIPs: true,
    triggersSince: Date.now(),
  });
  await state.attach(model);
  const dataplaneOptions: DataplaneOptions = {
    family: 'IPv4',
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: { kind: 'cidr', cidr: { ip: '10.128.0.0', prefixLength: 9 } },
    nodePortAddresses: ['127.0.0.1'],
  };
  const connection = TimedConnection.open();
  const dataplane = new NftablesFamily(connection, dataplaneOptions);
  const report = { kernelMs: 0, transactions: 0, elementsAdded: 0 };
  const counted: typeof dataplane.apply = async (change) => count(await dataplane.apply(change));
  const countedResync: typeof dataplane.resync = async (wanted) => count(await dataplane.resync(wanted));
  function count<
    R extends { kernelMs: number; transactions: number; elementsAdded: number; failures: readonly unknown[] },
  >(result: R): R {
    if (result.failures.length > 0) throw new Error('the kernel refused something');
    report.kernelMs += result.kernelMs;
    report.transactions += result.transactions;
    report.elementsAdded += result.elementsAdded;
    return result;
  }
  const loop = new SyncLoop({
    model,
    dataplanes: [
      {
        family: 'IPv4',
        resync: countedResync,
        apply: counted,
        setServiceCIDRs: (cidrs) => dataplane.setServiceCIDRs(cidrs),
        setNodePortAddresses: (addresses) => dataplane.setNodePortAddresses(addresses),
        get deferredDueAt() {
          return dataplane.deferredDueAt;
        },
        deleteDeferred: (now) => dataplane.deleteDeferred(now),
        maintain: () => dataplane.maintain(),
        close: () => {
          dataplane.close();
        },
      },
    ],
    health: new Health(60_000),
    metrics: createMetrics(),
    log: silentLogger,
    minSyncPeriodMs: 0,
    syncPeriodMs: 30_000,
    onChanges: () => undefined,
    afterSync: () => {
      synced++;
      acknowledged = performance.now();
    },
  });
  const feedSlice = feeder<EndpointSlice>(endpointSlices, (key, object) => {
    state.endpointSlice(key, object);
  });
  const settle = async (count: number): Promise<void> => {
    for (let turn = 0; synced < count; turn++) {
      if (turn > 100_000) throw new Error('no sync came');
      await sleep(0);
    }
  };

  const cpuBefore = process.cpuUsage();
  const feedService = feeder<Service>(services, (key, object) => {
    state.service(key, object);
  });
  const start = performance.now();
  for (const { kind, bytes } of frames) (kind === 'Service' ? feedService : feedSlice)(bytes);
  const read = performance.now();
  state.flush();
  await settle(1);
  const coldMs = acknowledged - read;
  const readMs = read - start;
  const cpu = process.cpuUsage(cpuBefore);
  const cold = { ...report, longestMs: connection.longestMs };
  frames.length = 0;
  globalThis.gc?.();

  // Each change is one EndpointSlice event of another service: an endpoint goes, and comes back, in turn.
  const latencies: number[] = [];
  const wide = [
    ...clusterObjects({ services: Math.min(serviceCount, 1000), endpoints: endpointCount, nodes: 100 }),
  ];
  const slices = wide.filter((object) => object['kind'] === 'EndpointSlice');
  for (let i = 0; i < changes; i++) {
    const slice = slices[(Math.floor(i / 2) * 7919) % slices.length] ?? {};
    const endpoints = slice['endpoints'] as readonly unknown[];
    const metadata = { ...(slice['metadata'] as Json), resourceVersion: String(i + 2) };
    const changed = { ...slice, metadata, endpoints: i % 2 === 0 ? endpoints.slice(1) : endpoints };
    const { bytes } = frame('MODIFIED', changed);
    const before = synced;
    await sleep(1);
    const read = performance.now();
    feedSlice(bytes);
    state.flush();
    await settle(before + 1);
    latencies.push(acknowledged - read);
  }
  await loop.stop();
  dataplane.close();

  globalThis.gc?.();
  const successor = new NftablesFamily(NftablesConnection.open(), dataplaneOptions);
  const resyncStart = performance.now();
  const resyncRun = await successor.resync(model.servicePorts('IPv4'));
  const resyncMs = performance.now() - resyncStart;
  if (resyncRun.transactions > 0)
    throw new Error(`an unchanged state was written again: ${JSON.stringify(resyncRun)}`);
  successor.close();
  return {
    services: serviceCount,
    endpoints: endpointCount,
    coldMs,
    readMs,
    coldCpuMs: (cpu.user + cpu.system) / 1000,
    coldKernelMs: cold.kernelMs,
    transactions: cold.transactions,
    longestMs: cold.longestMs,
    elements: cold.elementsAdded,
    bareMs: percentile(bare, 0.5),
    changeP50: percentile(latencies, 0.5),
    changeP99: percentile(latencies, 0.99),
    changeTransactions: (report.transactions - cold.transactions) / changes,
    resyncMs,
  };
}

const [serviceCount = 10_000, endpointCount = 10] = process.argv.slice(2).map(Number);
process.stdout.write(`${JSON.stringify(await main(serviceCount, endpointCount))}\n`);
process.exit();
