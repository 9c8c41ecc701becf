/** Made-up clusters for benchmarks. */
import type { Store } from './store.js';

export interface ClusterSize {
  readonly services: number;
  /** Per service; one slice holds at most 100. */
  readonly endpoints: number;
  readonly nodes: number;
}

function address(base: number, index: number): string {
  const number = base + index;
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');
}

/** Cluster IPs from 10.96.0.0/12, pods from 10.128.0.0/9, service names web-0, web-1, … in 50 namespaces. */
export function* clusterObjects(size: ClusterSize): Generator<Readonly<Record<string, unknown>>> {
  const created = '2026-01-01T00:00:00Z';
  for (let i = 0; i < size.services; i++) {
    const namespace = `team-${i % 50}`;
    const name = `web-${i}`;
    yield {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace, creationTimestamp: created, labels: { app: name } },
      spec: {
        clusterIP: address(0x0a600000, i + 1),
        selector: { app: name },
        ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 }],
      },
    };
    for (let first = 0, part = 0; first < size.endpoints; first += 100, part++) {
      const count = Math.min(100, size.endpoints - first);
      yield {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          name: `${name}-${part}`,
          namespace,
          creationTimestamp: created,
          labels: {
            'kubernetes.io/service-name': name,
            'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
          },
          annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': created },
        },
        addressType: 'IPv4',
        ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
        endpoints: Array.from({ length: count }, (_, j) => {
          const pod = i * size.endpoints + first + j;
          return {
            addresses: [address(0x0a800000, pod + 1)],
            conditions: { ready: true, serving: true, terminating: false },
            nodeName: `node-${pod % size.nodes}`,
            zone: `zone-${pod % 3}`,
          };
        }),
      };
    }
  }
}

export function generateCluster(store: Store, size: ClusterSize): void {
  for (const object of clusterObjects(size)) store.put(object);
}
