/** Which pod has which address of a Service, from EndpointSlices (discovery.k8s.io/v1, endpoints[].targetRef). */
import { isObject, listAt, objectAt, textAt, type JsonObject } from '../sources/kube/decode/json/fields.js';

export class PodNames {
  /** By 'namespace/service address'. */
  private readonly pods = new Map<string, string>();

  /** 'namespace/name'; undefined: not known. @param address canonical text */
  podOf(namespace: string, service: string, address: string): string | undefined {
    return this.pods.get(`${namespace}/${service} ${address}`);
  }

  /** @param slice an EndpointSlice as JSON @throws BrokenObjectError */
  add(slice: JsonObject): void {
    const metadata = objectAt(slice, 'metadata', '');
    const namespace = textAt(metadata, 'namespace', 'metadata.');
    const service = textAt(
      objectAt(metadata, 'labels', 'metadata.'),
      'kubernetes.io/service-name',
      'metadata.labels.',
    );
    if (service === '') return;
    for (const endpoint of listAt(slice, 'endpoints', '')) {
      if (!isObject(endpoint)) continue;
      const target = objectAt(endpoint, 'targetRef', 'endpoints.');
      const name = textAt(target, 'name', 'endpoints.targetRef.');
      if (name === '' || textAt(target, 'kind', 'endpoints.targetRef.') !== 'Pod') continue;
      const pod = `${textAt(target, 'namespace', 'endpoints.targetRef.') || namespace}/${name}`;
      for (const address of listAt(endpoint, 'addresses', 'endpoints.'))
        if (typeof address === 'string') this.pods.set(`${namespace}/${service} ${address}`, pod);
    }
  }
}
