/** Names of everything that mode ipvs keeps in the kernel. docs/ipvs.md explains each to the operator. */

/** The interface that holds service addresses, so that the kernel takes packets to them for its own. Upstream's name. */
export const serviceInterface = 'kube-ipvs0';

/** Of the nftables tables beside IPVS, one per family. */
export const tableName = 'kube-proxy-ipvs';

export const chains = {
  // base chains
  filterInput: 'filter-input',
  filterOutput: 'filter-output',
  filterForward: 'filter-forward',
  natPostrouting: 'nat-postrouting',
  // around IPVS, for addresses with two lists of endpoints
  inputShortCircuit: 'input-short-circuit',
  inputRestore: 'input-restore',
  outputRestore: 'output-restore',
  outputRestoreFirst: 'output-restore-first',
  // what they call
  services: 'services',
  service: 'service',
  localService: 'local-service',
  sourceRanges: 'source-ranges',
  shortCircuit: 'short-circuit',
  shortCircuitMark: 'short-circuit-mark',
} as const;

export const sets = {
  /** Addresses on the service interface. */
  boundIPs: 'bound-ips',
  /** Every address and port that IPVS serves for us, node ports with the node's addresses. */
  serviceIPs: 'service-ips',
  /** Those of them whose clients are masqueraded whoever they are. */
  externalIPs: 'external-ips',
  /** externalTrafficPolicy: Local. */
  localIPs: 'local-ips',
  firewallIPs: 'firewall-ips',
  rejectedIPs: 'rejected-ips',
  /** internalTrafficPolicy: Local without local endpoints. */
  droppedIPs: 'dropped-ips',
  /** externalTrafficPolicy: Local without local endpoints, where outsiders are dropped. */
  droppedLocalIPs: 'dropped-local-ips',
  serviceCIDRs: 'service-cidrs',
  hairpin: 'hairpin-connections',
  /** What a living process renews (leases.ts): without it nothing is refused here … */
  refusalLease: 'refusal-lease',
  /** … and no packet is led to a virtual server by mark. */
  markLease: 'mark-lease',
} as const;

export const maps = {
  /** externalTrafficPolicy: Local → mark of the virtual server that serves pods and this host */
  shortCircuits: 'short-circuits',
} as const;
