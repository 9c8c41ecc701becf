/** One node under test with everything around it: topology, object source, proxy, and the means to wait for a sync. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import type { Family, Place } from './addresses.js';
import { addressKey, findActor, nodeAddress, placeOf, secondAddress } from './addresses.js';
import type { ClusterSpec, ProxySpec } from './cases.js';
import type { ObjectSource } from './object-source.js';
import { ApiSource, ManifestSource } from './object-source.js';
import type { KubeObject } from './objects.js';
import { defaultServiceCidrs, nodeObject, objectKey, testNamespace } from './objects.js';
import { ProxyError, ProxyProcess, proxyArguments } from './proxy.js';
import type { ListenAddress, Protocol } from './protocol.js';
import { Topology } from './topology.js';
import { patiently } from '../patience.js';

export interface LabOptions {
  readonly job: number;
  readonly program: string;
  readonly mode: string;
  readonly source: 'api' | 'manifests';
  readonly families: readonly Family[];
  /** Those in which packets may be sent. */
  readonly protocols: readonly Protocol[];
  /** Folder for logs and generated files. */
  readonly folder: string;
}

const sentinelAddress: Readonly<Record<Family, string>> = { v4: '10.177.15.254', v6: 'fd77::fffe' };
/** The sentinel's backend ports are taken in turn, so that an old answer is never mistaken for a new one. */
const sentinelBackends = [9990, 9991, 9992, 9993];
const startPatience = patiently(60_000);
const syncPatience = patiently(20_000);

export class Lab {
  readonly topology: Topology;
  private readonly options: LabOptions;
  private objectSource: ObjectSource | undefined;
  private proxyProcess: ProxyProcess | undefined;
  private configuration = '';
  private generation = 0;
  private pendingSync: Promise<void> | undefined;
  private runningSync: Promise<void> = Promise.resolve();
  private nodeChanged = false;
  private tableOwner: ChildProcess | undefined;
  private readonly nodeAddresses = new Set<string>();
  private readonly present = new Map<string, KubeObject>();

  private constructor(options: LabOptions, topology: Topology) {
    this.options = options;
    this.topology = topology;
  }

  static async build(options: LabOptions): Promise<Lab> {
    const topology = await Topology.build(options.job, options.protocols);
    const lab = new Lab(options, topology);
    await topology.agent('local-pods').request({
      op: 'listen',
      sockets: options.families.flatMap((family) =>
        sentinelBackends.map((port) => ({
          protocol: 'TCP' as const,
          address: findActor('L1')![family],
          port,
        })),
      ),
    });
    return lab;
  }

  get mode(): string {
    return this.options.mode;
  }

  get proxy(): ProxyProcess {
    if (this.proxyProcess === undefined) throw new ProxyError('no proxy has been configured yet');
    return this.proxyProcess;
  }

  get source(): ObjectSource {
    if (this.objectSource === undefined) throw new ProxyError('no proxy has been configured yet');
    return this.objectSource;
  }

  /** Starts the proxy with this configuration, unless it runs with it already. */
  async configure(proxy: ProxySpec, cluster: ClusterSpec): Promise<void> {
    const wanted = configurationKey(proxy, cluster);
    if (wanted === this.configuration && this.proxyProcess?.running === true) return;
    await this.tearDownProxy();
    const number = `${this.options.job}-${this.generation}`;
    this.objectSource =
      this.options.source === 'api'
        ? await ApiSource.start(this.topology.namespace('alder'))
        : new ManifestSource(path.join(this.options.folder, `manifests-${number}`));
    await this.put([nodeObject(cluster), ...defaultServiceCidrs(cluster), ...this.sentinels()]);
    const args = proxyArguments(this.mode, proxy, path.join(this.options.folder, `config-${number}.yaml`));
    const log = path.join(this.options.folder, `proxy-${number}.log`);
    fs.writeFileSync(log, `# ${this.options.program} ${args.join(' ')}\n`);
    this.proxyProcess = new ProxyProcess(
      this.topology.namespace('alder'),
      this.options.program,
      [...args, ...this.objectSource.arguments],
      log,
    );
    this.proxyProcess.start();
    this.configuration = wanted;
    await this.awaitSentinel(startPatience);
  }

  /** After a batch: the Node as it was, slices delivered, the proxy running. */
  async restore(cluster: ClusterSpec): Promise<void> {
    await this.lockTables(false);
    await this.objectSource?.withholdSlices?.(false);
    if (this.nodeChanged) {
      await this.put([nodeObject(cluster)]);
      this.nodeChanged = false;
    }
    if (this.proxyProcess !== undefined && !this.proxyProcess.running) {
      this.proxyProcess.start();
      await this.sync();
    }
  }

  async changeNode(cluster: ClusterSpec): Promise<void> {
    this.nodeChanged = true;
    await this.put([nodeObject(cluster)]);
  }

  async tearDownProxy(): Promise<void> {
    if (this.proxyProcess === undefined) return;
    await this.proxyProcess.end('SIGTERM');
    if (this.mode !== 'nftables') await this.proxyProcess.cleanUp(this.mode).catch(() => undefined);
    await this.objectSource?.stop();
    this.present.clear();
    await this.topology.exec('alder', 'nft', ['flush', 'ruleset']);
    await this.topology.forgetConnections();
    this.proxyProcess = undefined;
    this.configuration = '';
  }

  async destroy(): Promise<void> {
    await this.lockTables(false);
    await this.proxyProcess?.end('SIGKILL');
    await this.objectSource?.stop();
    await this.topology.destroy();
  }

  async put(objects: readonly KubeObject[]): Promise<void> {
    for (const object of objects) this.present.set(objectKey(object), object);
    await this.source.put(objects);
  }

  async remove(keys: readonly string[]): Promise<void> {
    const present = keys.filter((key) => this.present.delete(key));
    await this.source.remove(present);
  }

  private sentinels(): readonly KubeObject[] {
    this.generation++;
    const port = 20_000 + (this.generation % 10_000);
    return this.options.families.flatMap((family) => sentinelObjects(family, port, this.backend()));
  }

  private backend(): number {
    return sentinelBackends[this.generation % sentinelBackends.length]!;
  }

  /**
   * Returns when everything that was put before is effective: a service of the harness is changed last, in its Service
   * and in its EndpointSlice, and polled until the new port reaches the new backend. Concurrent calls share one change.
   */
  sync(): Promise<void> {
    this.pendingSync ??= this.runningSync
      .catch(() => undefined)
      .then(async () => {
        this.pendingSync = undefined;
        const running = this.put(this.sentinels()).then(() => this.awaitSentinel(syncPatience));
        this.runningSync = running;
        await running;
      });
    return this.pendingSync;
  }

  private async awaitSentinel(patience: number): Promise<void> {
    const port = 20_000 + (this.generation % 10_000);
    const backend = this.backend();
    const deadline = Date.now() + patience;
    await Promise.all(
      this.options.families.map((family) => this.pollSentinel(family, port, backend, deadline)),
    );
  }

  /** In rounds, so that a proxy that has ended is noticed soon. */
  private async pollSentinel(family: Family, port: number, backend: number, deadline: number): Promise<void> {
    for (;;) {
      const { reached, last } = await this.topology.agent('local-clients').request({
        op: 'until',
        probe: {
          protocol: 'TCP',
          source: findActor('PA')![family],
          sourcePort: 0,
          target: sentinelAddress[family],
          port,
          timeout: patiently(60),
        },
        answeredBy: `${findActor('L1')![family]} ${backend}`,
        patience: patiently(500),
      });
      if (reached) return;
      if (!this.proxy.running) {
        throw new ProxyError(
          `the proxy has ended; its log ${this.proxy.log} ends with: ${this.proxy.tail()}`,
        );
      }
      if (Date.now() < deadline) continue;
      throw new ProxyError(
        `the proxy does not serve [${sentinelAddress[family]}]:${port}, a new service of the harness, last: ${JSON.stringify(last)}; its log ${this.proxy.log} ends with: ${this.proxy.tail()}`,
      );
    }
  }

  /** Adds or removes addresses of alder, on its loopback interface. */
  async ownAddresses(addresses: readonly string[], present: boolean): Promise<void> {
    for (const address of addresses) {
      const prefix = address.includes(':') ? `${address}/128` : `${address}/32`;
      if (present === this.nodeAddresses.has(addressKey(address))) continue;
      const verb = present ? 'add' : 'del';
      const flags = present && address.includes(':') ? ['nodad'] : [];
      await this.topology.exec('alder', 'ip', ['addr', verb, prefix, 'dev', 'lo', ...flags]);
      if (present) this.nodeAddresses.add(addressKey(address));
      else this.nodeAddresses.delete(addressKey(address));
    }
  }

  /**
   * Locked: the proxy's nftables tables are taken away and owned by another process, so that every attempt to program
   * them fails with EPERM until they are unlocked.
   */
  async lockTables(locked: boolean): Promise<void> {
    const owner = this.tableOwner;
    if (!locked) {
      if (owner === undefined) return;
      this.tableOwner = undefined;
      await new Promise<void>((resolve) => {
        owner.once('exit', () => {
          resolve();
        });
        owner.stdin!.end();
      });
      return;
    }
    // An interactive nft keeps its netlink socket, which is what owns the tables.
    const child = spawn('ip', ['netns', 'exec', this.topology.namespace('alder'), 'nft', '-i'], {
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    child.stdin.on('error', () => undefined);
    this.tableOwner = child;
    const name = this.mode === 'ipvs' ? 'kube-proxy-ipvs' : 'kube-proxy';
    for (const family of ['ip', 'ip6']) {
      child.stdin.write(`add table ${family} ${name}\ndelete table ${family} ${name}\n`);
      child.stdin.write(`add table ${family} ${name} { flags owner; }\n`);
    }
    const deadline = Date.now() + patiently(3000);
    while (!(await this.topology.exec('alder', 'nft', ['list', 'tables'])).includes(`ip6 ${name}`)) {
      if (Date.now() > deadline) throw new ProxyError('the tables could not be locked');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Who gets a packet for this address that nobody translates. */
  placeOf(address: string): Place {
    return this.nodeAddresses.has(addressKey(address)) ? 'alder' : placeOf(address);
  }

  isAlder(address: string): boolean {
    const key = addressKey(address);
    return (
      this.nodeAddresses.has(key) ||
      address.startsWith('127.') ||
      [nodeAddress.v4, nodeAddress.v6, secondAddress.v4, secondAddress.v6, '::1'].some(
        (own) => addressKey(own) === key,
      )
    );
  }

  /** Opens server sockets where the addresses live. A port that is taken already is left to whoever has it. */
  async listen(sockets: readonly ListenAddress[]): Promise<void> {
    const byPlace = new Map<Place, ListenAddress[]>();
    for (const socket of sockets) {
      const place = this.placeOf(socket.address);
      if (place === 'elsewhere') continue;
      byPlace.set(place, [...(byPlace.get(place) ?? []), socket]);
    }
    await Promise.all(
      [...byPlace].map(([place, list]) =>
        this.topology.agent(place).request({ op: 'listen', sockets: list }),
      ),
    );
  }
}

export function configurationKey(proxy: ProxySpec, cluster: ClusterSpec): string {
  return JSON.stringify([Object.entries(proxy).sort(), Object.entries(cluster).sort()]);
}

function sentinelObjects(family: Family, port: number, backend: number): readonly KubeObject[] {
  const name = `sentinel-${family}`;
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: {
        name,
        namespace: testNamespace,
        uid: `uid-${name}`,
        creationTimestamp: '2026-01-01T00:00:00Z',
      },
      spec: {
        type: 'ClusterIP',
        clusterIP: sentinelAddress[family],
        clusterIPs: [sentinelAddress[family]],
        ipFamilies: [family === 'v4' ? 'IPv4' : 'IPv6'],
        ipFamilyPolicy: 'SingleStack',
        ports: [{ protocol: 'TCP', port, targetPort: backend }],
        sessionAffinity: 'None',
        internalTrafficPolicy: 'Cluster',
      },
      status: { loadBalancer: {} },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${name}-0`,
        namespace: testNamespace,
        uid: `uid-${name}-0`,
        creationTimestamp: '2026-01-01T00:00:00Z',
        labels: { 'kubernetes.io/service-name': name },
      },
      addressType: family === 'v4' ? 'IPv4' : 'IPv6',
      ports: [{ name: '', protocol: 'TCP', port: backend }],
      endpoints: [
        {
          addresses: [findActor('L1')![family]],
          conditions: { ready: true, serving: true, terminating: false },
          nodeName: 'alder',
        },
      ],
    },
  ];
}
