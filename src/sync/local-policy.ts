/**
 * Which service ports have a Local traffic policy and endpoints, but none on this node: their traffic to this node is
 * dropped (metric kubeproxy_sync_proxy_rules_no_local_endpoints_total). Follows the changes, keeps nothing about the others.
 */
import type { ServicePort } from '../model/types.js';

export class LocalPolicyGaps {
  private readonly keys = { internal: new Set<string>(), external: new Set<string>() };

  /** @param ports service ports that are new or changed @param removed keys of those that are gone */
  update(ports: Iterable<ServicePort>, removed: Iterable<string>): void {
    for (const key of removed) this.forget(key);
    for (const port of ports) {
      this.forget(port.key);
      // The list of the cluster's endpoints does not tell: it is empty where no address may use it.
      for (const { fallback, scope } of port.addresses)
        if (fallback === 'drop') this.keys[scope].add(port.key);
    }
  }

  /** @param ports all there are */
  replace(ports: Iterable<ServicePort>): void {
    for (const keys of Object.values(this.keys)) keys.clear();
    this.update(ports, []);
  }

  get internal(): number {
    return this.keys.internal.size;
  }

  get external(): number {
    return this.keys.external.size;
  }

  private forget(key: string): void {
    this.keys.internal.delete(key);
    this.keys.external.delete(key);
  }
}
