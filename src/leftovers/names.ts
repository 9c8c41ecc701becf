/**
 * What the kernel holds of the other modes of kube-proxy, of upstream's and of ours, known by name (process.md section
 * 10). Chains that the kubelet makes (KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) are not
 * among them, nor are those of other programs that begin with KUBE-.
 */

/** Modes that leave something behind in the tables of iptables. */
export type RuleMode = 'iptables' | 'ipvs';

export const xtables = ['nat', 'filter', 'mangle'] as const;
export type XtableName = (typeof xtables)[number];

const both: readonly RuleMode[] = ['iptables', 'ipvs'];
const iptablesOnly: readonly RuleMode[] = ['iptables'];
const ipvsOnly: readonly RuleMode[] = ['ipvs'];

/** Which modes use a chain. */
const chains: Readonly<Record<XtableName, ReadonlyMap<string, readonly RuleMode[]>>> = {
  nat: new Map([
    ['KUBE-SERVICES', both],
    ['KUBE-POSTROUTING', both],
    ['KUBE-MARK-MASQ', both],
    ['KUBE-NODEPORTS', iptablesOnly],
    ['KUBE-PROXY-CANARY', iptablesOnly],
    ['KUBE-PROXY-PROBE', iptablesOnly],
    ['KUBE-NODE-PORT', ipvsOnly],
    ['KUBE-LOAD-BALANCER', ipvsOnly],
  ]),
  filter: new Map([
    ['KUBE-FORWARD', both],
    ['KUBE-PROXY-FIREWALL', both],
    ['KUBE-SERVICES', iptablesOnly],
    ['KUBE-EXTERNAL-SERVICES', iptablesOnly],
    ['KUBE-NODEPORTS', iptablesOnly],
    ['KUBE-PROXY-CANARY', iptablesOnly],
    ['KUBE-PROXY-PROBE', iptablesOnly],
    ['KUBE-NODE-PORT', ipvsOnly],
    ['KUBE-SOURCE-RANGES-FIREWALL', ipvsOnly],
    ['KUBE-IPVS-FILTER', ipvsOnly],
    ['KUBE-IPVS-OUT-FILTER', ipvsOnly],
  ]),
  mangle: new Map([
    ['KUBE-PROXY-CANARY', iptablesOnly],
    ['KUBE-PROXY-PROBE', iptablesOnly],
  ]),
};

/**
 * Mode iptables names the chains of Services with these and a hash (in table filter only ours, for its prefix trees);
 * KUBE-XLB- is that of versions before 1.24.
 */
const servicePrefix = /^KUBE-(?:SVC|SVL|SEP|FW|EXT|XLB)-/;

/** The modes that use a chain; none: it is not ours. */
export function modesOfChain(table: XtableName, name: string): readonly RuleMode[] {
  const known = chains[table].get(name);
  if (known !== undefined) return known;
  return table !== 'mangle' && servicePrefix.test(name) ? iptablesOnly : [];
}

/** Which chains of a table are left over while `running` runs, or all of ours when nothing does. */
export function isLeftoverChain(table: XtableName, running: RuleMode | undefined): (name: string) => boolean {
  return (name) => {
    const modes = modesOfChain(table, name);
    return modes.length > 0 && (running === undefined || !modes.includes(running));
  };
}

/** The interface that holds the service addresses in mode ipvs. */
export const ipvsInterface = 'kube-ipvs0';

const setNames = [
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
const maxSetName = 31;

/** The name of a set for IPv6. */
export function setNameIPv6(name: string): string {
  return name.replace(/^KUBE-/, 'KUBE-6-').slice(0, maxSetName);
}

/** Sets of mode ipvs, of both families. */
export const ownSets: ReadonlySet<string> = new Set(setNames.flatMap((name) => [name, setNameIPv6(name)]));

/** Sets that hold the node ports of one protocol (IANA number). */
export const nodePortSets: readonly { readonly name: string; readonly protocol: number }[] = [
  { name: 'KUBE-NODE-PORT-TCP', protocol: 6 },
  { name: 'KUBE-NODE-PORT-UDP', protocol: 17 },
  { name: 'KUBE-NODE-PORT-SCTP-HASH', protocol: 132 },
];

/** Sets of upstream's that hold addresses which clients outside the cluster use. */
export const externalSets: readonly string[] = [
  'KUBE-EXTERNAL-IP',
  'KUBE-EXTERNAL-IP-LOCAL',
  'KUBE-LOAD-BALANCER',
];

/** Tables of mode nftables. */
export const nftablesTable = 'kube-proxy';
/** They stand in for a moment while ours take the place of upstream's; a process that was killed then leaves them. */
export const nftablesInterimTable = 'kube-proxy-interim';

/** Tables of our mode ipvs; upstream's has rules of iptables and ipsets instead. */
export const ipvsTable = 'kube-proxy-ipvs';
/** A set in them: every address and port that IPVS serves for us. */
export const ipvsServices = 'service-ips';
/** A set in them: the addresses on the interface. */
export const ipvsBoundAddresses = 'bound-ips';
/** Sets in them: addresses and ports that clients outside the cluster use. */
export const ipvsExternalServices = ['external-ips', 'local-ips'] as const;
/** A map in them, from such an address to the mark of another virtual server for it. */
export const ipvsMarks = 'short-circuits';

/** Marks of virtual servers of our mode ipvs. */
export function isIpvsMark(mark: number): boolean {
  return (mark & 0xfff0_0000) === 0x6b70_0000;
}
