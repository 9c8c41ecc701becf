/**
 * The truth of a fault test: a small cluster in the double's store, in which some Services exist all along, with an
 * endpoint that is always ready, and others come, change and go.
 */
import type { ApiServer } from '../apiserver/server.js';
import { servedKinds, type ServedKind } from '../apiserver/resources.js';
import type { Random } from '@kube-proxy-ts/netlink/testing';

export const nodeName = 'alder';

/** What must be there at any time, in IPv4. */
export interface Lasting {
  /** As service ports are named. */
  readonly name: string;
  readonly clusterIP: string;
  readonly port: number;
  readonly endpoint: string;
}

export const lasting: readonly Lasting[] = [0, 1, 2].map((i) => ({
  name: `stay/s${i}:web`,
  clusterIP: `10.96.0.${i + 1}`,
  port: 80,
  endpoint: `10.61.${i}.1`,
}));

function kindOf(name: string): ServedKind {
  const found = servedKinds.find(({ kind }) => kind === name);
  if (found === undefined) throw new Error(name);
  return found;
}
const serviceKind = kindOf('Service');
const sliceKind = kindOf('EndpointSlice');
const cidrKind = kindOf('ServiceCIDR');

/** How many Services come and go. */
const passing = 6;

export class Cluster {
  /** What was true of an object, oldest first, by kind and key: no sink may ever see anything else. */
  private readonly history = new Map<string, string[]>();
  /** The past has come back; what was on its way then may still arrive. */
  restored = false;

  constructor(
    private readonly server: ApiServer,
    private readonly random: Random,
  ) {
    this.server.store.put({
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: nodeName },
      status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] },
    });
    this.putCIDR('kubernetes');
    for (const [i, { clusterIP }] of lasting.entries()) {
      this.putService('stay', `s${i}`, clusterIP, i === 1 ? 30_080 : undefined);
      this.putSlice('stay', `s${i}`, 'a', this.lastingEndpoints(i));
    }
    for (let i = 0; i < passing / 2; i++) this.change();
  }

  /** Something happens, as controllers and people make it happen. */
  change(): void {
    const { random, server } = this;
    const i = random.below(passing);
    const name = `p${i}`;
    switch (random.below(10)) {
      case 0:
      case 1:
        this.putService(
          'pass',
          name,
          `10.96.1.${random.below(8)}`,
          random.below(4) === 0 ? 31_000 + i : undefined,
        );
        return;
      case 2:
        server.store.delete(serviceKind, `pass/${name}`);
        return;
      case 3:
      case 4:
        this.putSlice('pass', name, random.below(2) === 0 ? 'a' : 'b', this.endpoints());
        return;
      case 5:
        server.store.delete(sliceKind, `pass/${name}-${random.below(2) === 0 ? 'a' : 'b'}`);
        return;
      case 6:
        if (random.below(2) === 0) this.putCIDR('more');
        else server.store.delete(cidrKind, 'more');
        return;
      case 7: {
        // The lasting ones change too, but not in what lasts.
        const which = random.below(lasting.length);
        if (random.below(2) === 0) this.putSlice('stay', `s${which}`, 'b', this.endpoints());
        else server.store.delete(sliceKind, `stay/s${which}-b`);
        return;
      }
      default: {
        const which = random.below(lasting.length);
        this.putSlice('stay', `s${which}`, 'a', this.lastingEndpoints(which));
      }
    }
  }

  /** A new Service, and a new endpoint of one that was there all along: by them it shows whether changes are followed. */
  probe(number: number): void {
    this.putService('pass', 'probe', `10.96.2.${number % 250}`, undefined);
    this.putSlice('stay', 's0', 'probe', [`10.61.8.${number % 250}`]);
  }

  /**
   * When an object looked like this, as a number that grows with every change of it: the first time not before `from`.
   * @returns -1 when it did not since then
   */
  whenTrue(kind: string, key: string, mark: string, from: number): number {
    return this.history.get(`${kind} ${key}`)?.indexOf(mark, from) ?? -1;
  }

  private lastingEndpoints(i: number): string[] {
    return [lasting[i]?.endpoint ?? '', ...this.endpoints()];
  }

  private endpoints(): string[] {
    return Array.from({ length: this.random.below(4) }, () => `10.61.9.${this.random.below(20)}`);
  }

  private putCIDR(name: string): void {
    this.server.store.put({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name },
      spec: { cidrs: [name === 'more' ? '10.112.0.0/16' : '10.96.0.0/16'] },
    });
  }

  private putService(namespace: string, name: string, clusterIP: string, nodePort: number | undefined): void {
    this.note('Service', `${namespace}/${name}`, serviceMark(clusterIP, nodePort ?? 0));
    this.server.store.put({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace, name, creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        type: nodePort === undefined ? 'ClusterIP' : 'NodePort',
        clusterIP,
        ports: [{ name: 'web', port: 80, ...(nodePort === undefined ? {} : { nodePort }) }],
      },
    });
  }

  private putSlice(namespace: string, service: string, part: string, addresses: readonly string[]): void {
    const name = `${service}-${part}`;
    this.note('EndpointSlice', `${namespace}/${name}`, addresses.join());
    this.server.store.put({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { namespace, name, labels: { 'kubernetes.io/service-name': service } },
      addressType: 'IPv4',
      ports: [{ name: 'web', port: 9000 }],
      endpoints: addresses.map((address) => ({ addresses: [address], nodeName })),
    });
  }

  private note(kind: string, key: string, mark: string): void {
    const id = `${kind} ${key}`;
    const marks = this.history.get(id);
    if (marks === undefined) this.history.set(id, [mark]);
    else marks.push(mark);
  }
}

export function serviceMark(clusterIP: string, nodePort: number): string {
  return `${clusterIP} ${nodePort}`;
}
