/** The ipsets of upstream's mode ipvs, by name. Ours has tables of nf_tables in their place. */

const names = [
  'KUBE-LOOP-BACK',
  'KUBE-CLUSTER-IP',
  'KUBE-EXTERNAL-IP',
  'KUBE-EXTERNAL-IP-LOCAL',
  'KUBE-LOAD-BALANCER',
  'KUBE-LOAD-BALANCER-FW',
  'KUBE-LOAD-BALANCER-LOCAL',
  'KUBE-LOAD-BALANCER-SOURCE-IP',
  'KUBE-LOAD-BALANCER-SOURCE-CIDR',
  'KUBE-NODE-PORT-TCP',
  'KUBE-NODE-PORT-LOCAL-TCP',
  'KUBE-NODE-PORT-UDP',
  'KUBE-NODE-PORT-LOCAL-UDP',
  'KUBE-NODE-PORT-SCTP-HASH',
  'KUBE-NODE-PORT-LOCAL-SCTP-HASH',
  'KUBE-HEALTH-CHECK-NODE-PORT',
  'KUBE-IPVS-IPS',
];

/** The kernel's limit (IPSET_MAXNAMELEN with its end); upstream cuts longer names. */
const maxNameLength = 31;

/** The name of a set for IPv6. */
export function setNameIPv6(name: string): string {
  return name.replace(/^KUBE-/, 'KUBE-6-').slice(0, maxNameLength);
}

/** Of both families. */
export const ipsets: ReadonlySet<string> = new Set(names.flatMap((name) => [name, setNameIPv6(name)]));

/** Sets that hold the node ports of one protocol (IANA number). */
export const nodePortSets: readonly { readonly name: string; readonly protocol: number }[] = [
  { name: 'KUBE-NODE-PORT-TCP', protocol: 6 },
  { name: 'KUBE-NODE-PORT-UDP', protocol: 17 },
  { name: 'KUBE-NODE-PORT-SCTP-HASH', protocol: 132 },
];

/** Sets that hold addresses which clients outside the cluster use. */
export const externalSets: readonly string[] = [
  'KUBE-EXTERNAL-IP',
  'KUBE-EXTERNAL-IP-LOCAL',
  'KUBE-LOAD-BALANCER',
];
