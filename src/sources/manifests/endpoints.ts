/** Endpoint slices for Services that select Pods, as the endpoint slice controller would make them. */
import { isIPv6 } from 'node:net';
import type { EndpointSlice, EndpointSlicePort, Service, SliceEndpoint } from '../objects.js';
import type { Labels, Pod, ServiceTarget } from './objects.js';

/** Every label of the selector is there with the same value. An empty selector selects nothing. */
export function selects(selector: Labels, labels: Labels): boolean {
  if (selector.size === 0) return false;
  for (const [name, value] of selector) {
    if (labels.get(name) !== value) return false;
  }
  return true;
}

/** The ports that this Pod serves; a named port that it does not have is left out. */
function resolvePorts(target: ServiceTarget, pod: Pod): readonly EndpointSlicePort[] {
  return target.ports.flatMap(({ name, protocol, target: wanted }) => {
    const port =
      typeof wanted === 'number'
        ? wanted
        : pod.ports.find((candidate) => candidate.name === wanted && candidate.protocol === protocol)?.port;
    return port === undefined ? [] : [{ name, protocol, port }];
  });
}

/** One slice per family and per set of port numbers, for Pods that a named port takes to different numbers. */
export function slicesFromPods(
  service: Service,
  target: ServiceTarget,
  pods: readonly Pod[],
): readonly EndpointSlice[] {
  const slices: EndpointSlice[] = [];
  for (const family of service.ipFamilies) {
    const groups = new Map<string, { ports: readonly EndpointSlicePort[]; endpoints: SliceEndpoint[] }>();
    for (const pod of pods) {
      const address = pod.ips.find((ip) => isIPv6(ip) === (family === 'IPv6'));
      if (address === undefined || pod.finished || pod.namespace !== service.namespace) continue;
      if (!selects(target.selector, pod.labels)) continue;
      const ports = resolvePorts(target, pod);
      const groupKey = JSON.stringify(ports);
      let group = groups.get(groupKey);
      if (group === undefined) {
        group = { ports, endpoints: [] };
        groups.set(groupKey, group);
      }
      group.endpoints.push({
        address,
        ready: target.publishNotReady || (pod.ready && !pod.terminating),
        serving: pod.ready,
        terminating: pod.terminating,
        nodeName: pod.nodeName,
        zoneHints: [],
        nodeHints: [],
      });
    }
    let number = 0;
    for (const { ports, endpoints } of groups.values()) {
      slices.push({
        namespace: service.namespace,
        // A dot can't be in the name of a Service, so that no slice of a manifest has this name by accident.
        name: `${service.name}.${family.toLowerCase()}-${number++}`,
        serviceName: service.name,
        headless: false,
        addressType: family,
        ports,
        endpoints,
        triggerTime: '',
      });
    }
  }
  return slices;
}
