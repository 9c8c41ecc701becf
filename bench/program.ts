/**
 * The real program against the API server's double, each a process of its own, in a network namespace of their own.
 * Run as root:
 *
 *     node dist/bench/program.js [services] [endpoints per service] [seconds of churn; 0: none]
 *
 * Prints one JSON object (ProgramResult). What the kernel holds is watched from outside: through the generation of its
 * nftables ruleset, which every commit increases, and through the answers of a Service (probe.ts).
 */
import { spawnSync, type ChildProcess } from 'node:child_process';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft } from '@kube-proxy-ts/netlink/testing';
import { clusterObjects } from '../test/apiserver/generate.js';
import { ApiClient, slicePath, type Json } from './api-client.js';
import { ended, killAll, line, memory, processorSeconds, start } from './children.js';
import { percentile } from './percentile.js';
import { Probe, type Backend } from './probe.js';

/** Many services change, one after the other, each an endpoint that goes and comes back in turn. */
export interface ChurnResult {
  /** Changes per second that were asked for, and that the writer managed. */
  readonly rate: number;
  readonly achieved: number;
  readonly seconds: number;
  /** From a write to the API server to a packet that is answered accordingly, milliseconds: all along, and the worst. */
  readonly lagP50: number;
  readonly lagMax: number;
  /** The same for a write after the last of the others. */
  readonly lagAfter: number;
  /** Processor time of kube-proxy, as a share of one core. */
  readonly processor: number;
}

/** Milliseconds from the damage to an answered packet. */
export interface RepairResult {
  readonly tableDeleted: number;
  /** `nft flush ruleset`; undefined where nft is not installed. */
  readonly rulesetFlushed: number | undefined;
  /** One element of `service-ips`, median of ten. */
  readonly elementDeleted: number;
}

export interface ProgramResult {
  readonly services: number;
  readonly endpoints: number;
  /** Bare process: `--version`, median of five, milliseconds. */
  readonly versionMs: number;
  /** A process that only reads the lists (reader.ts), from its start to its end: median of three, milliseconds. */
  readonly readMs: number;
  /** From process start to the last acknowledgement of the kernel, empty table before. */
  readonly coldMs: number;
  /** From kill -9 and start to the kernel's state compared, nothing changed meanwhile. */
  readonly restartMs: number;
  /** Commits to nftables while it restarted. */
  readonly restartWrites: number;
  /** From a write to the API server to the kernel's commit, both as seen by a third process. */
  readonly changeP50: number;
  readonly changeP99: number;
  /** From a write to the API server to a packet that is answered by the new endpoint. */
  readonly answerP50: number;
  readonly answerP99: number;
  readonly churn: readonly ChurnResult[];
  readonly repair: RepairResult | undefined;
  /** MiB when the cold start is done, at its peak, after settling, and after the changes. */
  readonly rssStart: number;
  readonly rssPeak: number;
  readonly rssSettled: number;
  readonly rssAfterChanges: number;
  readonly rssAfterRestart: number;
}

const changes = 200;
const answers = 100;
const settleMs = 5_000;
const deadlineMs = 60_000;
const churnRates = [100, 1000];
/** Changes before those that count, so that what is compiled then is not counted: steady changes go on for longer than a minute. */
const warmUp = { rate: 1000, seconds: 15 };
const tickMs = 10;
const program = fileURLToPath(new URL('../../bin/kube-proxy', import.meta.url));
const apiServer = fileURLToPath(new URL('../test/apiserver/main.js', import.meta.url));

const reader = fileURLToPath(new URL('./reader.js', import.meta.url));

/** The rules of both families are in the kernel, whichever comes first. */
async function resynced(proxy: ChildProcess): Promise<void> {
  await Promise.all(
    [/"Resync complete".*"family":"IPv4"/, /"Resync complete".*"family":"IPv6"/].map((wanted) =>
      line(proxy, 'stderr', wanted),
    ),
  );
}

function startProxy(url: string): ChildProcess {
  return start(program, [
    `--master=${url}`,
    '--hostname-override=node-0',
    '--cluster-cidr=10.128.0.0/9',
    '--logging-format=json',
    '--healthz-bind-address=127.0.0.1:10256',
    '--metrics-bind-address=127.0.0.1:10249',
  ]);
}

/** Median of a process from its start to its end, milliseconds. */
async function lifetime(times: number, file: string, args: readonly string[]): Promise<number> {
  const taken: number[] = [];
  for (let i = 0; i < times; i++) {
    const begin = performance.now();
    await ended(start(file, args));
    taken.push(performance.now() - begin);
  }
  return percentile(taken, 0.5);
}

/** Changes of slices that make up a cluster: the first endpoint of one after the other goes, and comes back. */
class Changes {
  private readonly slices: readonly Json[];
  private made = 0;

  constructor(services: number, endpoints: number) {
    const size = { services: Math.min(services, 1000), endpoints, nodes: 100 };
    this.slices = [...clusterObjects(size)].filter((object) => object['kind'] === 'EndpointSlice');
  }

  next(): Json {
    const i = this.made++;
    const slice = this.slices[(Math.floor(i / 2) * 7919) % this.slices.length] ?? {};
    const all = slice['endpoints'] as readonly unknown[];
    return { ...slice, endpoints: i % 2 === 0 ? all.slice(1) : all };
  }
}

/** Asks for one other endpoint after the other. */
class ProbeWriter {
  private backend: Backend = 0;

  constructor(
    private readonly probe: Probe,
    private readonly api: ApiClient,
  ) {}

  /** @returns milliseconds from the write to the first answer of the other endpoint */
  async change(): Promise<number> {
    this.backend = this.backend === 0 ? 1 : 0;
    const slice = this.probe.slice(this.backend);
    const begin = performance.now();
    const written = this.api.replace(slicePath(slice), slice);
    const answered = await this.probe.answeredBy(this.backend);
    await written;
    return answered - begin;
  }

  /** @returns milliseconds until the endpoint that should answer does */
  async answered(): Promise<number> {
    const begin = performance.now();
    return (await this.probe.answeredBy(this.backend)) - begin;
  }
}

async function churn(
  proxy: ChildProcess,
  rate: number,
  seconds: number,
  source: Changes,
  api: ApiClient,
  probe: ProbeWriter,
): Promise<ChurnResult> {
  const lags: number[] = [];
  const perTick = Math.max(1, (rate * tickMs) / 1000);
  const begin = performance.now();
  const processorBefore = processorSeconds(proxy);
  const end = begin + seconds * 1000;
  let written = 0;
  const writing = (async (): Promise<void> => {
    while (performance.now() < end) {
      const due = begin + (written / perTick) * tickMs;
      const wait = due - performance.now();
      if (wait > 0) await sleep(wait);
      const objects = Array.from({ length: perTick }, () => source.next());
      const [only] = objects;
      if (objects.length === 1 && only !== undefined) await api.replace(slicePath(only), only);
      else await api.putAll(objects);
      written += objects.length;
    }
  })();
  while (performance.now() < end) {
    lags.push(await probe.change());
    await sleep(200);
  }
  await writing;
  const took = (performance.now() - begin) / 1000;
  const processor = (processorSeconds(proxy) - processorBefore) / took;
  return {
    rate,
    achieved: written / took,
    seconds: took,
    lagP50: percentile(lags, 0.5),
    lagMax: Math.max(...lags),
    lagAfter: await probe.change(),
    processor,
  };
}

async function repairs(kernel: NftablesConnection, probe: Probe, writer: ProbeWriter): Promise<RepairResult> {
  const damage = async (change: (batch: Batch) => void): Promise<number> => {
    // What was repaired lately is repaired more slowly, see docs/nftables.md.
    await sleep(1500);
    const batch = new Batch('ip', 'kube-proxy');
    change(batch);
    kernel.commit(batch);
    return await writer.answered();
  };
  const elements: number[] = [];
  for (let i = 0; i < 10; i++) {
    elements.push(
      await damage((batch) => {
        batch.deleteElement('service-ips', probe.addressKey());
      }),
    );
  }
  const tableDeleted = await damage((batch) => {
    batch.deleteTable();
  });
  await sleep(1500);
  let rulesetFlushed: number | undefined;
  if (missingNft() === false) {
    spawnSync('nft', ['flush', 'ruleset']);
    rulesetFlushed = await writer.answered();
  }
  return { elementDeleted: percentile(elements, 0.5), tableDeleted, rulesetFlushed };
}

async function main(services: number, endpoints: number, churnSeconds: number): Promise<ProgramResult> {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);
  const versionMs = await lifetime(5, program, ['--version']);
  const probe = await Probe.open();

  const size = ['--services', String(services), '--endpoints', String(endpoints)];
  const double = start(process.execPath, [apiServer, ...size]);
  const url = await line(double, 'stdout', /^http/);
  const api = new ApiClient(url);
  await api.create('/api/v1/nodes', {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-0' },
    status: { addresses: [{ type: 'InternalIP', address: '100.64.0.1' }] },
  });
  await api.putAll([probe.service(), probe.slice(0)]);
  const probeWriter = new ProbeWriter(probe, new ApiClient(url));
  const source = new Changes(services, endpoints);

  const kernel = NftablesConnection.open();
  const generation = (): number => kernel.getGeneration().id;

  const readMs = await lifetime(3, process.execPath, [reader, url]);
  const coldStart = performance.now();
  let proxy = startProxy(url);
  await resynced(proxy);
  const coldMs = performance.now() - coldStart;
  const [rssStart, rssPeak] = [memory(proxy, 'VmRSS'), memory(proxy, 'VmHWM')];
  await sleep(settleMs);
  const rssSettled = memory(proxy, 'VmRSS');

  const latencies: number[] = [];
  for (let i = 0; i < changes; i++) {
    const slice = source.next();
    await sleep(5);
    const before = generation();
    const begin = performance.now();
    const written = api.replace(slicePath(slice), slice);
    while (generation() === before) {
      if (performance.now() - begin > deadlineMs) throw new Error('a change never reached the kernel');
      await nextTurn();
    }
    latencies.push(performance.now() - begin);
    await written;
  }
  const answered: number[] = [];
  for (let i = 0; i < answers; i++) {
    await sleep(15);
    answered.push(await probeWriter.change());
  }
  const churned: ChurnResult[] = [];
  if (churnSeconds > 0) await churn(proxy, warmUp.rate, warmUp.seconds, source, api, probeWriter);
  for (const rate of churnSeconds > 0 ? churnRates : []) {
    await sleep(1000);
    const seconds = Math.min(churnSeconds, rate > 100 ? 10 : Infinity);
    churned.push(await churn(proxy, rate, seconds, source, api, probeWriter));
  }
  const rssAfterChanges = memory(proxy, 'VmRSS');
  const repair = churnSeconds > 0 ? await repairs(kernel, probe, probeWriter) : undefined;

  // The first packet is answered before a repair is complete.
  for (let last = -1; last !== generation();) {
    last = generation();
    await sleep(1000);
  }
  proxy.kill('SIGKILL');
  await ended(proxy);
  const before = generation();
  const restart = performance.now();
  proxy = startProxy(url);
  await resynced(proxy);
  const restartMs = performance.now() - restart;
  await sleep(1000);
  const restartWrites = generation() - before;
  const rssAfterRestart = memory(proxy, 'VmRSS');
  kernel.close();
  api.close();
  return {
    services,
    endpoints,
    versionMs,
    readMs,
    coldMs,
    restartMs,
    restartWrites,
    changeP50: percentile(latencies, 0.5),
    changeP99: percentile(latencies, 0.99),
    answerP50: percentile(answered, 0.5),
    answerP99: percentile(answered, 0.99),
    churn: churned,
    repair,
    rssStart,
    rssPeak,
    rssSettled,
    rssAfterChanges,
    rssAfterRestart,
  };
}

const [services = 10_000, endpoints = 10, churnSeconds = 0] = process.argv.slice(2).map(Number);
try {
  process.stdout.write(`${JSON.stringify(await main(services, endpoints, churnSeconds))}\n`);
} finally {
  killAll();
}
process.exit();
