/**
 * A Service whose answers tell which of two endpoints it has: so the time from a write to the API server to the first
 * packet that is answered as it says can be measured from outside. Endpoints and client are in this network namespace.
 */
import { connect, createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '@kube-proxy-ts/netlink/testing';
import type { Json } from './api-client.js';

const serviceIP = '10.111.255.1';
const port = 9000;
const backends = ['10.255.0.1', '10.255.0.2'] as const;
export type Backend = 0 | 1;

/** Between two attempts; what is measured is known no better than this. */
const pollMs = 0.5;
const attemptMs = 50;
const deadlineMs = 30_000;

export class Probe {
  private constructor(private readonly servers: readonly Server[]) {}

  static async open(): Promise<Probe> {
    // Node-local packets need a way to the Service's address before they are translated.
    run('ip', 'route', 'add', 'default', 'dev', 'lo');
    const servers: Server[] = [];
    for (const [index, address] of backends.entries()) {
      run('ip', 'address', 'add', `${address}/32`, 'dev', 'lo');
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.end(String(index));
      });
      await new Promise<void>((resolve) => server.listen(port, address, resolve));
      servers.push(server);
    }
    return new Probe(servers);
  }

  service(): Json {
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'probe', namespace: 'probe', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: { clusterIP: serviceIP, ports: [{ name: 'tcp', port: 80, protocol: 'TCP', targetPort: port }] },
    };
  }

  slice(backend: Backend): Json {
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'probe-0', namespace: 'probe', labels: { 'kubernetes.io/service-name': 'probe' } },
      addressType: 'IPv4',
      ports: [{ name: 'tcp', port, protocol: 'TCP' }],
      endpoints: [
        {
          addresses: [backends[backend]],
          conditions: { ready: true, serving: true, terminating: false },
          nodeName: 'node-0',
        },
      ],
    };
  }

  /** Key of the Service's address in the map `service-ips`. */
  addressKey(): Buffer {
    const bytes = Buffer.alloc(12);
    serviceIP.split('.').forEach((part, i) => bytes.writeUInt8(Number(part), i));
    bytes.writeUInt8(6, 4);
    bytes.writeUInt16BE(80, 8);
    return bytes;
  }

  /**
   * Connects again and again until this backend answers.
   * @returns performance.now() of that moment
   */
  async answeredBy(backend: Backend): Promise<number> {
    const deadline = performance.now() + deadlineMs;
    let answered: number | undefined;
    while (answered === undefined) {
      if (performance.now() > deadline) throw new Error('the Service never answered as it should');
      attempt((answer) => {
        if (answer === String(backend)) answered ??= performance.now();
      });
      await sleep(pollMs);
    }
    return answered;
  }

  close(): void {
    for (const server of this.servers) server.close();
  }
}

/** One new connection; it may well fail. */
function attempt(onAnswer: (answer: string) => void): void {
  const socket = connect(80, serviceIP);
  const timer = setTimeout(() => socket.destroy(), attemptMs);
  socket.on('error', () => undefined);
  socket.once('data', (data) => {
    onAnswer(data.toString());
    // No TIME_WAIT: there are many of these.
    socket.resetAndDestroy();
  });
  socket.once('close', () => {
    clearTimeout(timer);
  });
}
