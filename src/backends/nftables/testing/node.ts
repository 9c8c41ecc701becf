/** One node for kernel tests: a dataplane, what it was last told, and an eye on the kernel. */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Endpoint, IPFamily, ServicePort } from '../../../model/types.js';
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import { NftablesFamily } from '../family.js';
import { readLines, desiredLines } from './table-text.js';

export const tableName = 'kube-proxy';

/** Refuses batches on demand, as the kernel would. */
export class FaultyConnection extends NftablesConnection {
  /** Errno for a batch, or undefined to let it pass. */
  refuse: (batch: Batch) => number | undefined = () => undefined;
  commits = 0;

  /** As kernels before 6.18: sets do not tell how many elements they have. */
  hideCounts = false;

  override listSets(...args: Parameters<NftablesConnection['listSets']>) {
    const found = super.listSets(...args);
    return this.hideCounts ? found.map((set) => ({ ...set, count: undefined })) : found;
  }

  static override open(): FaultyConnection {
    return new FaultyConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  override commit(batch: Batch): void {
    const errno = this.refuse(batch);
    if (errno !== undefined) throw new NetlinkError({ operation: 'commit (refused by the test)', errno });
    super.commit(batch);
    this.commits++;
  }
}

export function nftOf(family: IPFamily): 'ip' | 'ip6' {
  return family === 'IPv4' ? 'ip' : 'ip6';
}

export function optionsOf(family: IPFamily, more: Partial<DataplaneOptions> = {}): DataplaneOptions {
  return {
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: {
      kind: 'cidr',
      cidr: family === 'IPv4' ? { ip: '10.61.0.0', prefixLength: 16 } : { ip: 'fd00:61::', prefixLength: 32 },
    },
    nodePortAddresses: 'all',
    ...more,
  };
}

/** How the endpoints in the kernel are read at an adoption. */
export interface Reading {
  /** See ReadOptions. */
  readonly dumpLimit?: number;
  readonly hideCounts?: boolean;
}

/** One node: a dataplane, what it was last told, and an eye on the kernel. */
export class Node {
  readonly nft: 'ip' | 'ip6';
  readonly eye = NftablesConnection.open();
  readonly wanted = new Map<string, ServicePort>();
  connection = FaultyConnection.open();
  dataplane: NftablesFamily;
  /** Rules by chain, as first seen. */
  private readonly rules = new Map<string, string>();

  constructor(
    readonly family: IPFamily,
    readonly options: DataplaneOptions = optionsOf(family),
    private readonly reading: Reading = {},
  ) {
    this.nft = nftOf(family);
    this.connection.hideCounts = reading.hideCounts ?? false;
    this.dataplane = new NftablesFamily(this.connection, options, reading.dumpLimit);
  }

  /** The process is gone, another one begins. */
  restart(): void {
    this.dataplane.close();
    this.connection = FaultyConnection.open();
    this.connection.hideCounts = this.reading.hideCounts ?? false;
    this.dataplane = new NftablesFamily(this.connection, this.options, this.reading.dumpLimit);
  }

  async resync() {
    const report = await this.resyncOnly();
    await this.settle();
    return report;
  }

  /** Without the deletions that wait. */
  async resyncOnly() {
    return await this.dataplane.resync(this.wanted.values());
  }

  async apply(upserted: readonly ServicePort[], removed: readonly string[] = []) {
    const report = await this.applyOnly(upserted, removed);
    await this.settle();
    return report;
  }

  /** Without the deletions that wait. */
  async applyOnly(upserted: readonly ServicePort[], removed: readonly string[] = []) {
    for (const key of removed) this.wanted.delete(key);
    for (const port of upserted) this.wanted.set(port.key, port);
    return await this.dataplane.apply({ family: this.family, upserted, removed });
  }

  /** Deletes what waits. @returns how many transactions that took */
  async settle(): Promise<number> {
    let transactions = 0;
    // Looking through remembered clients (AffinitySweep) takes longer; here are none.
    for (;;) {
      const report = await this.dataplane.deleteDeferred(Infinity);
      if (report.transactions === 0) return transactions;
      transactions += report.transactions;
      await nextTurn();
    }
  }

  check(what: string, around: Parameters<typeof desiredLines>[1] = {}): void {
    assert.deepEqual(readLines(this.eye, this.family), desiredLines(this.wanted.values(), around), what);
    this.checkChains(what);
  }

  /** Every class leads to a chain that is there; a chain says today what it said when it was first seen. */
  private checkChains(what: string): void {
    const chains = new Map(
      this.eye.listChains(this.nft, tableName).map(({ name }) => [name, [] as string[]]),
    );
    for (const { chain, expressions } of this.eye.listRules(this.nft, tableName))
      chains.get(chain)?.push(JSON.stringify(expressions));
    for (const [name, rules] of chains) {
      if (name === 'source-ranges') continue;
      const text = rules.join('\n');
      assert.equal(text, this.rules.get(name) ?? text, `${what}: rules of ${name}`);
      this.rules.set(name, text);
    }
    for (const name of this.rules.keys()) {
      if (!/\d/.test(name)) assert.ok(chains.has(name), `${what}: chain ${name} is missing`);
    }
  }

  /** Changes the kernel behind the dataplane's back. */
  tamper(change: (batch: Batch) => void): void {
    const batch = new Batch(this.nft, tableName);
    change(batch);
    this.eye.commit(batch);
  }

  close(): void {
    this.dataplane.close();
    if (this.eye.listTables(this.nft).some(({ name }) => name === tableName)) {
      this.tamper((batch) => {
        batch.deleteTable();
      });
    }
    this.eye.close();
  }
}

export async function onNode(
  family: IPFamily,
  work: (node: Node) => Promise<void>,
  options?: Partial<DataplaneOptions>,
  reading?: Reading,
): Promise<void> {
  const node = new Node(family, optionsOf(family, options), reading);
  try {
    await work(node);
  } finally {
    node.close();
  }
}

export const endpoint = (host: number, local = false): Endpoint => ({
  ip: `10.61.${host >> 8}.${host & 255}`,
  port: 9000,
  local,
  nodeUnknown: false,
});

export const endpoints = (count: number, from = 1): Endpoint[] =>
  Array.from({ length: count }, (_, i) => endpoint(from + i));

/** Service port number `id` with a cluster IP. */
export function servicePort(id: number, fields: Partial<ServicePort> = {}): ServicePort {
  const clusterIP = `10.177.${id >> 8}.${id & 255}`;
  const clusterEndpoints = fields.clusterEndpoints ?? endpoints(2);
  return {
    key: `test/s${id}:http/TCP`,
    name: `test/s${id}:http`,
    namespace: 'test',
    serviceName: `s${id}`,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP,
    port: 80,
    addresses: [
      {
        kind: 'ClusterIP',
        ip: clusterIP,
        port: 80,
        scope: 'internal',
        policy: 'Cluster',
        fallback: clusterEndpoints.length > 0 ? 'serve' : 'reject',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints,
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
    ...fields,
  };
}
