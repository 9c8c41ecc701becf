/**
 * What a packet pays: the time of connect() to an endpoint's own address and through a Service (cluster IP, load
 * balancer address, node port), at several numbers of Services, and through rules laid out as upstream's. All in one
 * network namespace of its own, taken in turns. Run as root:
 *
 *     node dist/bench/data-path.js [services …]
 *
 * Prints one JSON object (DataPathResult).
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { NftablesFamily } from '../src/backends/nftables/family.js';
import type { ServicePort, VirtualAddress } from '../src/model/types.js';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { killAll, line, start } from './children.js';
import { socketAddress, timeConnect } from './libc.js';
import { percentile } from './percentile.js';
import { chainPerService } from './ruleset-text.js';

/** The ways to one and the same endpoint: its own address, and through a Service. */
export interface EachWay {
  readonly direct: number;
  readonly clusterIP: number;
  readonly loadBalancerIP: number;
  readonly nodePort: number;
}

/** Median microseconds of connect(). */
export interface ConnectTimes extends EachWay {
  /** Connections that one client opens and closes in a second, one after the other; by the median round. */
  readonly perSecond: EachWay;
}

export interface DataPathResult {
  readonly sizes: readonly ({ readonly services: number } & ConnectTimes)[];
  /** A chain per service, for as many services as `nft` takes in reasonable time; undefined where nft is missing. */
  readonly chains: readonly ({ readonly services: number } & ConnectTimes)[] | undefined;
}

const server = { ip: '10.255.0.1', port: 9000 };
const client = '10.255.0.9';
const nodeIP = '100.64.0.1';
const measured = { clusterIP: '10.111.0.1', loadBalancerIP: '192.0.2.1', port: 80, nodePort: 30080 };
const podCIDR = { ip: '10.255.0.0', prefixLength: 16 };

const rounds = 120;
const perRound = 40;
/** `nft` needs time in proportion to the square: 5 s for these, minutes for 50,000. */
const mostChains = 5_000;

function port(
  name: string,
  addresses: readonly VirtualAddress[],
  endpointIP: string,
  number: number,
): ServicePort {
  const [first] = addresses;
  return {
    key: `bench/${name}:http/TCP`,
    name: `bench/${name}:http`,
    namespace: 'bench',
    serviceName: name,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: first?.ip ?? '',
    port: 80,
    addresses,
    clusterEndpoints: [{ ip: endpointIP, port: number, local: false, nodeUnknown: false }],
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
  };
}

function address(kind: VirtualAddress['kind'], ip: string, number: number): VirtualAddress {
  const scope = kind === 'ClusterIP' ? 'internal' : 'external';
  return { kind, ip, port: number, scope, policy: 'Cluster', fallback: 'serve', sourceRanges: undefined };
}

function numbered(base: string, index: number): string {
  const [a = 0, b = 0, c = 0, d = 0] = base.split('.').map(Number);
  const number = a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d + index;
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');
}

/** Each Service has a cluster IP, a load balancer address and a node port, as far as there are ports. */
function others(from: number, to: number): ServicePort[] {
  return Array.from({ length: to - from }, (_, i) => {
    const index = from + i;
    const addresses = [
      address('ClusterIP', numbered('10.96.0.1', index), 80),
      address('LoadBalancerIP', numbered('198.18.0.1', index), 80),
      ...(index < 30_000 ? [address('NodePort', '', 31_000 + index)] : []),
    ];
    return port(`web-${index}`, addresses, numbered('10.128.0.1', index), 8080);
  });
}

function measure(): ConnectTimes {
  const from = socketAddress(client, 0);
  const targets = {
    direct: socketAddress(server.ip, server.port),
    clusterIP: socketAddress(measured.clusterIP, measured.port),
    loadBalancerIP: socketAddress(measured.loadBalancerIP, measured.port),
    nodePort: socketAddress(nodeIP, measured.nodePort),
  };
  const noTimes = (): Record<keyof EachWay, number[]> => ({
    direct: [],
    clusterIP: [],
    loadBalancerIP: [],
    nodePort: [],
  });
  const [times, roundTimes] = [noTimes(), noTimes()];
  const kinds = Object.keys(targets) as (keyof EachWay)[];
  for (let round = -5; round < rounds; round++) {
    // In turns, so that whatever else the machine does hits all alike.
    for (const kind of kinds) {
      const begin = performance.now();
      for (let i = 0; i < perRound; i++) {
        const taken = timeConnect(from, targets[kind]) / 1000;
        if (round >= 0) times[kind].push(taken);
      }
      if (round >= 0) roundTimes[kind].push(performance.now() - begin);
    }
  }
  const eachWay = (of: (kind: keyof EachWay) => number): EachWay => ({
    direct: of('direct'),
    clusterIP: of('clusterIP'),
    loadBalancerIP: of('loadBalancerIP'),
    nodePort: of('nodePort'),
  });
  return {
    ...eachWay((kind) => percentile(times[kind], 0.5)),
    perSecond: eachWay((kind) => (perRound * 1000) / percentile(roundTimes[kind], 0.5)),
  };
}

async function ours(counts: readonly number[]): Promise<DataPathResult['sizes']> {
  const connection = NftablesConnection.open();
  const dataplane = new NftablesFamily(connection, {
    family: 'IPv4',
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: { kind: 'cidr', cidr: podCIDR },
    nodePortAddresses: [nodeIP],
  });
  const addresses = [
    address('ClusterIP', measured.clusterIP, measured.port),
    address('LoadBalancerIP', measured.loadBalancerIP, measured.port),
    address('NodePort', '', measured.nodePort),
  ];
  await dataplane.resync([port('measured', addresses, server.ip, server.port)]);
  const sizes = [];
  let there = 1;
  for (const services of counts) {
    const upserted = others(there, services);
    const { failures } = await dataplane.apply({ family: 'IPv4', upserted, removed: [] });
    if (failures.length > 0) throw new Error(`the kernel refused ${failures.length} service ports`);
    there = services;
    sizes.push({ services, ...measure() });
  }
  const batch = new Batch('ip', 'kube-proxy');
  batch.deleteTable();
  connection.commit(batch);
  connection.close();
  return sizes;
}

function chains(counts: readonly number[]): DataPathResult['chains'] {
  if (missingNft() !== false) return undefined;
  return counts
    .filter((services) => services <= mostChains)
    .map((services) => {
      const input = chainPerService(
        'chains',
        { services, endpoints: 1 },
        { ...measured, nodeIP, server, podCIDR },
      );
      const loaded = spawnSync('nft', ['-f', '-'], { input, encoding: 'utf8' });
      if (loaded.status !== 0) throw new Error(`nft -f failed: ${loaded.stderr.slice(0, 500)}`);
      const times = measure();
      run('nft', 'delete', 'table', 'ip', 'chains');
      return { services, ...times };
    });
}

async function main(counts: readonly number[]): Promise<DataPathResult> {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);
  run('ip', 'route', 'add', 'default', 'dev', 'lo');
  for (const ip of [server.ip, client, nodeIP]) run('ip', 'address', 'add', `${ip}/32`, 'dev', 'lo');
  const acceptor = fileURLToPath(new URL('./acceptor.js', import.meta.url));
  await line(start(process.execPath, [acceptor, server.ip, String(server.port)]), 'stdout', /^ready/);
  return { sizes: await ours(counts), chains: chains(counts) };
}

const given = process.argv.slice(2).map(Number);
try {
  const result = await main(given.length > 0 ? given : [10, 5_000, 50_000]);
  process.stdout.write(`${JSON.stringify(result)}\n`);
} finally {
  killAll();
}
process.exit();
