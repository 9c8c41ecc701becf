/**
 * The floor under everything: one bare netlink batch of the elements that services with so many endpoints have in the data
 * plane's maps, comments included, with nothing around it. Run as root:
 *
 *     node dist/bench/netlink-batch.js [services] [endpoints per service]
 *
 * It moves to a network namespace of its own first (through `unshare`), so nothing is left behind.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Batch, NftablesConnection, selectors, type SetDefinition } from '@kube-proxy-ts/netlink/nftables';

export interface BareBatchResult {
  /** Elements in the batch. */
  readonly elements: number;
  readonly bytes: number;
  readonly messages: number;
  /** Milliseconds to write the batch. */
  readonly encodeMs: number;
  /** Milliseconds in the kernel, acknowledgement included. */
  readonly commitMs: number;
}

const virtualAddress = [selectors.ipDaddr, selectors.l4proto, selectors.thDport];

const endpoints: SetDefinition = {
  name: 'endpoints',
  key: [...virtualAddress, selectors.numgenRandom(2)],
  value: [selectors.ipDaddr, selectors.thDport],
};

const clusterIPs: SetDefinition = { name: 'cluster-ips', key: [selectors.ipDaddr] };

const serviceIPs: SetDefinition = {
  name: 'service-ips',
  key: virtualAddress,
  value: [selectors.priority],
};

/**
 * Commits one batch that creates a table and fills it: one element per service in `service-ips` and `cluster-ips`, one
 * per endpoint in `endpoints`. The table is removed afterwards.
 * @param table a name that nobody uses
 */
export function bareBatch(
  connection: NftablesConnection,
  table: string,
  services: number,
  endpointsPerService: number,
): BareBatchResult {
  const start = performance.now();
  const batch = new Batch('ip', table);
  batch.addTable();
  batch.addSet(endpoints);
  batch.addSet(serviceIPs);
  batch.addSet(clusterIPs);
  const key = Buffer.alloc(16);
  const serviceKey = key.subarray(0, 12);
  const addressKey = key.subarray(0, 4);
  const target = Buffer.alloc(8);
  const priority = Buffer.alloc(4);
  key.writeUInt8(6, 4);
  key.writeUInt16BE(80, 8);
  target.writeUInt16BE(8080, 4);
  priority.writeUInt32LE(0x00010000 | (endpointsPerService & 0xffff), 0);
  for (let service = 0; service < services; service++) {
    key.writeUInt32BE(0x0a600000 + service, 0);
    batch.addElement('service-ips', serviceKey, priority, {
      comment: `team-${service % 50}/web-${service}:http`,
    });
  }
  for (let service = 0; service < services; service++) {
    key.writeUInt32BE(0x0a600000 + service, 0);
    batch.addElement('cluster-ips', addressKey);
  }
  for (let service = 0; service < services; service++) {
    key.writeUInt32BE(0x0a600000 + service, 0);
    for (let slot = 0; slot < endpointsPerService; slot++) {
      key.writeUInt32LE(slot, 12);
      target.writeUInt32BE(0x0b000000 + service * endpointsPerService + slot, 0);
      batch.addElement('endpoints', key, target);
    }
  }
  const encoded = performance.now();
  connection.commit(batch);
  const committed = performance.now();
  const cleanup = new Batch('ip', table);
  cleanup.deleteTable();
  connection.commit(cleanup);
  return {
    elements: services * (2 + endpointsPerService),
    bytes: batch.byteLength,
    messages: batch.messageCount,
    encodeMs: encoded - start,
    commitMs: committed - encoded,
  };
}

const inNamespace = 'NETLINK_BATCH_IN_NAMESPACE';

function main(): void {
  const script = fileURLToPath(import.meta.url);
  if (process.env[inNamespace] === undefined) {
    const { status } = spawnSync('unshare', ['--net', process.execPath, script, ...process.argv.slice(2)], {
      stdio: 'inherit',
      env: { ...process.env, [inNamespace]: '1' },
    });
    process.exitCode = status ?? 1;
    return;
  }
  const [services = 10_000, perService = 10] = process.argv.slice(2).map(Number);
  const connection = NftablesConnection.open();
  for (let round = 1; round <= 3; round++) {
    const result = bareBatch(connection, 'netlink-batch', services, perService);
    console.log(
      `${services} x ${perService}, round ${round}: ${result.elements} elements, ${(result.bytes / 1e6).toFixed(1)} MB in ` +
        `${result.messages} messages: encode ${result.encodeMs.toFixed(1)} ms, kernel ${result.commitMs.toFixed(1)} ms`,
    );
  }
  connection.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
