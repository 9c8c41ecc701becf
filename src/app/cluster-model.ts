/**
 * The model and what it was told about this node. It is made as soon as the node is known, so that objects are worked
 * into it while the rest of the lists is still on its way.
 */
import type { Config } from '../config/config.js';
import type { Node } from '../sources/objects.js';
import { ServiceModel } from '../model/model.js';
import { nodeStatusIPs, resolveNodeIPs, type NodeIPs } from '../model/addresses/node.js';
import type { IPFamily } from '../model/types.js';
import { usableFamilies } from '../node/families.js';

export interface ClusterModel {
  readonly model: ServiceModel;
  /** Those that this machine can serve. */
  readonly families: readonly IPFamily[];
  readonly nodeIPs: NodeIPs;
}

/** @param node undefined: nothing is known about it, and nothing will be */
export function clusterModel(config: Config, node: Node | undefined): ClusterModel {
  const families = usableFamilies();
  const nodeIPs = resolveNodeIPs(nodeStatusIPs(node?.addresses ?? []), config.bindAddress);
  const model = new ServiceModel({
    nodeName: config.nodeName,
    nodeIPs: { IPv4: nodeIPs.IPv4, IPv6: nodeIPs.IPv6 },
    families,
    externalIPs: config.gates.AllowServiceExternalIPs,
    triggersSince: Date.now(),
  });
  return { model, families, nodeIPs };
}
