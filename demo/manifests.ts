/**
 * The cluster's objects, as files. In a real cluster the control plane writes them and the API server hands them out;
 * here the story does.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { node, type Sandbox } from './topology.js';

export const service = {
  name: 'my-app',
  ip: '10.96.0.10',
  port: 80,
  targetPort: 8080,
} as const;

const serviceManifest = `apiVersion: v1
kind: Service
metadata:
  name: ${service.name}
spec:
  selector:
    app: ${service.name}
  clusterIP: ${service.ip}
  ports:
    - port: ${service.port}
      targetPort: ${service.targetPort}
`;

const podManifest = (pod: Sandbox): string => `apiVersion: v1
kind: Pod
metadata:
  name: ${pod.name}
  labels:
    app: ${service.name}
spec:
  nodeName: ${node.name}
  containers:
    - name: web
      ports:
        - containerPort: ${service.targetPort}
status:
  phase: Running
  podIP: ${pod.ip}
  conditions:
    - type: Ready
      status: "True"
`;

/** How much else there is in the cluster, later in the story. */
export const others = { services: 5000, endpointsEach: 10 } as const;

/** Services with an EndpointSlice each. Nobody asks them anything: the addresses lead nowhere. */
function otherManifests(): string {
  const items: object[] = [];
  for (let n = 0; n < others.services; n++) {
    const name = `other-${n}`;
    const [high, low] = [n >> 8, n & 255];
    const endpoints = Array.from({ length: others.endpointsEach }, (_, at) => ({
      addresses: [`10.${128 + high}.${low}.${at + 1}`],
      conditions: { ready: true },
    }));
    items.push(
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { clusterIP: `10.100.${high}.${low}`, ports: [{ port: service.port }] },
      },
      {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { name, labels: { 'kubernetes.io/service-name': name } },
        addressType: 'IPv4',
        ports: [{ name: '', protocol: 'TCP', port: service.targetPort }],
        endpoints,
      },
    );
  }
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** A folder of manifests. Every change is one step: the reader never sees half a file. */
export class ManifestFolder {
  constructor(readonly path: string) {
    mkdirSync(path);
  }

  putService(): void {
    this.put('service.yaml', serviceManifest);
  }

  putPod(pod: Sandbox): void {
    this.put(`${pod.name}.yaml`, podManifest(pod));
  }

  removePod(pod: Sandbox): void {
    rmSync(join(this.path, `${pod.name}.yaml`));
  }

  putOthers(): void {
    this.put('others.json', otherManifests());
  }

  private put(name: string, text: string): void {
    const draft = `${this.path}.draft`;
    writeFileSync(draft, text);
    renameSync(draft, join(this.path, name));
  }
}
