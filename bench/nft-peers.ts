/**
 * Peers of the cold start: `nft -f` with the elements of the bare batch, and `nft -f` with a chain per service, the
 * shape of upstream's rules. Run as root:
 *
 *     node dist/bench/nft-peers.js [services] [endpoints per service] [services with a chain each]
 *
 * Prints one JSON object (NftPeersResult). The text is made before the clock starts.
 */
import { spawnSync } from 'node:child_process';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft } from '@kube-proxy-ts/netlink/testing';
import { bareBatch } from './netlink-batch.js';
import { percentile } from './percentile.js';
import { chainPerService, changedChain, sharedMaps } from './ruleset-text.js';

export interface NftPeersResult {
  readonly services: number;
  readonly endpoints: number;
  /** Bare batch (encode and kernel) and `nft -f`, the same elements; milliseconds. */
  readonly bareMs: number;
  readonly nftMs: number;
  readonly chainServices: number;
  /** The same at `chainServices`, and with a chain per service. */
  readonly chainBareMs: number;
  readonly chainNftMs: number;
  /** One endpoint changed: `nft -f` with the service's chain; median of ten. */
  readonly chainChangeMs: number;
}

function load(text: string): number {
  const start = performance.now();
  const { status, stderr } = spawnSync('nft', ['-f', '-'], { input: text, encoding: 'utf8' });
  if (status !== 0) throw new Error(`nft -f failed: ${stderr.slice(0, 500)}`);
  return performance.now() - start;
}

function bareMs(services: number, endpoints: number): number {
  const connection = NftablesConnection.open();
  const times = Array.from({ length: 3 }, (_, i) => {
    const { encodeMs, commitMs } = bareBatch(connection, `bare-${i}`, services, endpoints);
    return encodeMs + commitMs;
  });
  connection.close();
  return percentile(times, 0.5);
}

function main(services: number, endpoints: number, chainServices: number): NftPeersResult {
  const impossible = enterNetworkNamespace() || missingNft();
  if (impossible !== false) throw new Error(impossible);
  const bare = bareMs(services, endpoints);
  const nftMs = load(sharedMaps('maps', { services, endpoints }));
  load('delete table ip maps\n');
  const chainBare = bareMs(chainServices, endpoints);
  const size = { services: chainServices, endpoints };
  const chainNftMs = load(chainPerService('chains', size));
  const changes = Array.from({ length: 10 }, (_, i) =>
    load(changedChain('chains', Math.floor(i / 2) * 7, size, endpoints - ((i + 1) % 2))),
  );
  return {
    services,
    endpoints,
    bareMs: bare,
    nftMs,
    chainServices,
    chainBareMs: chainBare,
    chainNftMs,
    chainChangeMs: percentile(changes, 0.5),
  };
}

const [services = 10_000, endpoints = 10, chainServices = 2_000] = process.argv.slice(2).map(Number);
process.stdout.write(`${JSON.stringify(main(services, endpoints, chainServices))}\n`);
process.exit();
