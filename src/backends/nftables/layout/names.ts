/** Names of everything we keep in the tables. docs/nftables.md explains each to the operator. */

export const tableName = 'kube-proxy';
/** Stands beside a table of our name that somebody else laid out, while that is taken down and ours is put up. */
export const interimTableName = 'kube-proxy-interim';

/** Chains that are always there. */
export const chains = {
  // base chains, in the order of a packet's way
  filterPreroutingPreDnat: 'filter-prerouting-pre-dnat',
  filterOutputPreDnat: 'filter-output-pre-dnat',
  natPrerouting: 'nat-prerouting',
  natOutput: 'nat-output',
  filterInput: 'filter-input',
  filterForward: 'filter-forward',
  filterOutput: 'filter-output',
  natPostrouting: 'nat-postrouting',
  // node ports on ::1, before and behind connection tracking
  rawOutputLoopback: 'raw-output-loopback',
  filterInputLoopback: 'filter-input-loopback',
  // what they call
  firewallCheck: 'firewall-check',
  sourceRanges: 'source-ranges',
  services: 'services',
  nodePortsCheck: 'nodeport-endpoints-check',
  servicesCheck: 'service-endpoints-check',
  clusterIPsCheck: 'cluster-ips-check',
  masquerading: 'masquerading',
  // externalTrafficPolicy: Local, who is asking?
  externalLocal: 'external-local',
  externalLocalPod: 'external-local-pod',
  externalLocalHost: 'external-local-host',
  nodePortLocal: 'nodeport-local',
  nodePortLocalPod: 'nodeport-local-pod',
  nodePortLocalHost: 'nodeport-local-host',
} as const;

export const maps = {
  /** address → class of behaviour */
  serviceIPs: 'service-ips',
  serviceNodePorts: 'service-nodeports',
  /** class of behaviour → chain */
  classes: 'service-classes',
  /** the same behind externalTrafficPolicy: Local; one map for both would be a loop to the kernel (EMLINK) */
  pickClasses: 'pick-classes',
  /** address . slot → endpoint */
  endpoints: 'endpoints',
  endpointsLocal: 'endpoints-local',
  nodePortEndpoints: 'nodeport-endpoints',
  nodePortEndpointsLocal: 'nodeport-endpoints-local',
  /** externalTrafficPolicy: Local: class for pods and this host, class for everybody else */
  shortCircuitIPs: 'short-circuit-ips',
  shortCircuitNodePorts: 'short-circuit-nodeports',
  localIPs: 'local-ips',
  localNodePorts: 'local-nodeports',
  /** ClientIP affinity */
  affinityIPs: 'affinity-ips',
  affinityNodePorts: 'affinity-nodeports',
  affinity: 'affinity',
  affinitySlots: 'affinity-slots',
  affinitySlotsLocal: 'affinity-slots-local',
  affinityEndpoints: 'affinity-endpoints',
  affinityEndpointsLocal: 'affinity-endpoints-local',
} as const;

export const sets = {
  clusterIPs: 'cluster-ips',
  serviceCIDRs: 'service-cidrs',
  nodePortIPs: 'nodeport-ips',
  firewallIPs: 'firewall-ips',
  rejectedIPs: 'rejected-ips',
  rejectedNodePorts: 'rejected-nodeports',
  droppedIPs: 'dropped-ips',
  droppedNodePorts: 'dropped-nodeports',
  hairpin: 'hairpin-connections',
} as const;
