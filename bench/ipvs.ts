/**
 * Mode ipvs against `ipvsadm -R`, in one kernel, one after the other: the same virtual servers and endpoints, from nothing.
 * Needs a kernel with IPVS and Debian's ipvsadm; run as root, or in the virtual machine (docs/ipvs.md, "Speed"):
 *
 *     node dist/bench/ipvs.js [services] [endpoints per service] [rounds] [services for changes]
 *     node dist/test/vm/main.js --minutes 60 -- node dist/bench/ipvs.js
 *
 * Prints one JSON object (IpvsResult).
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { IpvsFamily } from '../src/backends/ipvs/family.js';
import { KernelServiceInterface } from '../src/backends/ipvs/service-interface.js';
import type { Endpoint, ServicePort } from '../src/model/types.js';
import { FORWARDING, IpvsConnection, type IpvsCommand } from '@kube-proxy-ts/netlink/ipvs';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { percentile } from './percentile.js';

/** Milliseconds; the fastest of the rounds. */
export interface Timing {
  readonly ms: number;
  /** Of it, of this process in the kernel and outside. */
  readonly systemMs: number;
  readonly userMs: number;
}

export interface IpvsResult {
  readonly machine: { readonly kernel: string; readonly processor: string; readonly node: string };
  readonly services: number;
  readonly endpointsPerService: number;
  readonly rounds: number;
  /** `ipvsadm -R` with a file of all commands. */
  readonly ipvsadm: Timing;
  /** The commands in datagrams of many, only the last of each acknowledged: what the program does. */
  readonly batched: Timing;
  /** The same commands one by one, each acknowledged, over one socket. */
  readonly oneByOne: Timing;
  /** All of mode ipvs: virtual servers, addresses on kube-ipvs0, and the elements of its table. */
  readonly dataplane: Timing;
  /** How many times as long `ipvsadm -R` takes as `batched`, and as `dataplane`. */
  readonly ratio: { readonly batched: number; readonly dataplane: number };
  /** An endpoint is replaced, by number of services that there are: median and 99th percentile, milliseconds. */
  readonly change: readonly { readonly services: number; readonly p50: number; readonly p99: number }[];
}

const changes = 100;
const fewServices = 100;

function address(prefix: number, number: number): string {
  return `${prefix}.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
}

function endpointsOf(service: number, count: number): Endpoint[] {
  return Array.from({ length: count }, (_, at) => ({
    ip: address(10, (1 << 22) + service * count + at),
    port: 8080,
    local: false,
    nodeUnknown: false,
  }));
}

function servicePorts(services: number, endpoints: number): ServicePort[] {
  return Array.from({ length: services }, (_, number) => servicePort(number, endpointsOf(number, endpoints)));
}

function servicePort(number: number, clusterEndpoints: readonly Endpoint[]): ServicePort {
  const clusterIP = address(11, number + 1);
  return {
    key: `bench/service-${number}:http/TCP`,
    name: `bench/service-${number}:http`,
    namespace: 'bench',
    serviceName: `service-${number}`,
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
        fallback: clusterEndpoints.length === 0 ? 'reject' : 'serve',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints,
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
  };
}

function commandsOf(ports: readonly ServicePort[]): IpvsCommand[] {
  return ports.flatMap((port): IpvsCommand[] => {
    const key = { family: 'ip', protocol: 6, address: port.clusterIP, port: port.port } as const;
    const settings = { scheduler: 'rr', flags: 0, timeoutSeconds: 0, clientPrefixLength: 32 };
    return [
      { do: 'add service', server: { key, settings } },
      ...port.clusterEndpoints.map((endpoint): IpvsCommand => ({
        do: 'add destination',
        service: key,
        destination: { family: 'ip', address: endpoint.ip, port: endpoint.port },
        settings: { forwarding: FORWARDING.masquerade, weight: 1, upperThreshold: 0, lowerThreshold: 0 },
      })),
    ];
  });
}

function restoreText(ports: readonly ServicePort[]): string {
  return ports
    .map(({ clusterIP, port, clusterEndpoints }) => {
      const server = `-t ${clusterIP}:${port}`;
      const endpoints = clusterEndpoints.map((e) => `-a ${server} -r ${e.ip}:${e.port} -m -w 1\n`);
      return `-A ${server} -s rr\n${endpoints.join('')}`;
    })
    .join('');
}

async function timed(work: () => unknown): Promise<Timing> {
  const processor = process.cpuUsage();
  const start = performance.now();
  await work();
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(processor);
  return { ms, systemMs: system / 1000, userMs: user / 1000 };
}

/** On an emulated machine all of it takes long. */
function tell(what: string): void {
  process.stderr.write(`${what}\n`);
}

/** Empty before each round, and checked after it. */
async function best(what: string, rounds: number, expected: number, work: () => unknown): Promise<Timing> {
  let fastest: Timing | undefined;
  for (let round = 0; round < rounds; round++) {
    empty();
    const timing = await timed(work);
    const held = count();
    if (held !== expected) throw new Error(`${expected} virtual servers were wanted, IPVS has ${held}`);
    tell(
      `${what}: ${timing.ms.toFixed(0)} ms; of this process ${timing.systemMs.toFixed(0)} in the kernel, ${timing.userMs.toFixed(0)} outside`,
    );
    if (fastest === undefined || timing.ms < fastest.ms) fastest = timing;
  }
  if (fastest === undefined) throw new RangeError('at least one round');
  return fastest;
}

function count(): number {
  const connection = IpvsConnection.open();
  try {
    return connection.listServices().length;
  } finally {
    connection.close();
  }
}

function empty(): void {
  spawnSync('ipvsadm', ['-C']);
  spawnSync('ip', ['link', 'del', 'kube-ipvs0']);
  spawnSync('nft', ['flush', 'ruleset']);
}

function restore(file: string): void {
  const input = openSync(file, 'r');
  try {
    const { status, stderr } = spawnSync('ipvsadm', ['-R'], { stdio: [input, 'ignore', 'pipe'] });
    if (status !== 0) throw new Error(`ipvsadm -R: ${stderr.toString()}`);
  } finally {
    closeSync(input);
  }
}

function openFamily(): IpvsFamily {
  return new IpvsFamily(
    {
      nft: NftablesConnection.open(),
      ipvs: IpvsConnection.open(),
      observer: IpvsConnection.open(),
      addresses: new KernelServiceInterface(RouteConnection.open(), 'ip'),
    },
    {
      family: 'IPv4',
      masqueradeMark: 0x4000,
      masqueradeAll: false,
      detector: undefined,
      nodePortAddresses: [],
    },
    { scheduler: 'rr', excludeCIDRs: [], localAddresses: [] },
  );
}

async function programAll(ports: readonly ServicePort[]): Promise<void> {
  const family = openFamily();
  try {
    const { failures } = await family.resync(ports);
    if (failures[0] !== undefined) throw failures[0].error;
  } finally {
    family.close();
  }
}

/** The last endpoint of one service goes, another comes; each time of another service. */
async function changeOne(ports: readonly ServicePort[]): Promise<{ p50: number; p99: number }> {
  empty();
  const family = openFamily();
  try {
    await family.resync(ports);
    const times: number[] = [];
    for (let number = 0; number < changes; number++) {
      const at = (number * 37) % ports.length;
      const endpoints = ports[at]?.clusterEndpoints ?? [];
      const replaced = [...endpoints.slice(0, -1), { ...endpointsOf(1_000_000 + number, 1)[0] } as Endpoint];
      const start = performance.now();
      const report = await family.apply({
        family: 'IPv4',
        upserted: [servicePort(at, replaced)],
        removed: [],
      });
      times.push(performance.now() - start);
      if (report.failures[0] !== undefined) throw report.failures[0].error;
    }
    return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) };
  } finally {
    family.close();
  }
}

async function measure(
  services: number,
  endpoints: number,
  rounds: number,
  manyServices: number,
): Promise<IpvsResult> {
  const ports = servicePorts(services, endpoints);
  const commands = commandsOf(ports);
  const scratch = mkdtempSync(join(tmpdir(), 'bench-ipvs-'));
  const connection = IpvsConnection.open();
  try {
    const file = join(scratch, 'rules');
    writeFileSync(file, restoreText(ports));
    // The first to come loads modules and warms up; nobody's time.
    connection.executeAll(commandsOf(servicePorts(10, 1)));
    const batched = await best('batched', rounds, services, () => {
      const [refusal] = connection.executeAll(commands);
      if (refusal !== undefined) throw refusal.error;
    });
    const ipvsadm = await best('ipvsadm -R', rounds, services, () => {
      restore(file);
    });
    const dataplane = await best('dataplane', rounds, services, () => programAll(ports));
    const oneByOne = await best('one by one', 1, services, () => {
      for (const command of commands) connection.execute(command);
    });
    const change = [];
    for (const number of [fewServices, manyServices]) {
      change.push({ services: number, ...(await changeOne(servicePorts(number, endpoints))) });
      tell(`changes among ${number} services`);
    }
    return {
      machine: {
        kernel: `${release()} ${arch()}`,
        processor: cpus()[0]?.model ?? 'unknown',
        node: process.versions.node,
      },
      services,
      endpointsPerService: endpoints,
      rounds,
      ipvsadm,
      batched,
      oneByOne,
      dataplane,
      ratio: { batched: ipvsadm.ms / batched.ms, dataplane: ipvsadm.ms / dataplane.ms },
      change,
    };
  } finally {
    empty();
    connection.close();
    rmSync(scratch, { recursive: true });
  }
}

const [services = 10_000, endpoints = 10, rounds = 2, manyServices = services] = process.argv
  .slice(2)
  .map(Number);
const problem = enterNetworkNamespace();
if (problem !== false) {
  process.stderr.write(`${problem}\n`);
  process.exitCode = 1;
} else {
  const result = await measure(services, endpoints, rounds, manyServices);
  process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
}
