/**
 * What will be different when a node moves from mode ipvs, upstream's or ours, to mode nftables (or iptables), as far as the
 * kernel and the configuration tell. Pure.
 */
import {
  FORWARDING,
  type RealServer,
  type IpvsTimeouts,
  type VirtualServer,
} from '@kube-proxy-ts/netlink/ipvs';
import { describeKey, IPVS_SVC_F } from '@kube-proxy-ts/netlink/ipvs';

export interface VirtualServerState {
  readonly server: VirtualServer;
  readonly endpoints: readonly RealServer[];
  /** 'namespace/name:port'; undefined: not known. */
  readonly name: string | undefined;
}

/** What mode ipvs has in the kernel now. */
export interface IpvsFacts {
  readonly ours: readonly VirtualServerState[];
  /** Number of virtual servers that are not kube-proxy's. */
  readonly others: number;
  /** Addresses on kube-ipvs0. */
  readonly serviceAddresses: readonly string[];
  /** Those of them that clients outside the cluster use: external and load balancer addresses. */
  readonly externalAddresses: readonly string[];
  /** The node's own addresses. */
  readonly nodeAddresses: readonly string[];
  readonly timeouts: IpvsTimeouts;
  /** net.netfilter.nf_conntrack_tcp_timeout_established, seconds; undefined: not known. */
  readonly conntrackTcpSeconds: number | undefined;
  /** net.ipv4.conf.all.arp_ignore and arp_announce; undefined: not known. */
  readonly arp: { readonly ignore: number; readonly announce: number } | undefined;
}

/** The configuration that the node is to run with. */
export interface MovingTarget {
  readonly mode: 'nftables' | 'iptables';
  /** Config.nodePortAddresses */
  readonly nodePortAddresses: readonly string[];
  readonly localhostNodePorts: boolean;
  readonly excludeCIDRs: readonly string[];
}

export interface MovingRow {
  readonly topic: string;
  readonly now: string;
  readonly then: string;
  /** What the operator may want to do about it; '': nothing. */
  readonly advice: string;
}

/** Number of hours after which connections are no longer waited for; see leftovers. */
const drainHours = 24;
const shownItems = 5;

export function movingReport(facts: IpvsFacts, target: MovingTarget): MovingRow[] {
  return [
    connections(facts),
    idleConnections(facts),
    schedulers(facts, target),
    ...weights(facts),
    ...affinity(facts),
    addresses(facts),
    ...externalAddresses(facts),
    ...strictArp(facts),
    nodePorts(facts, target),
    ...others(facts, target),
    {
      topic: 'settings of the kernel',
      now: 'net.ipv4.vs.*, timeouts of IPVS',
      then: 'stay as they are, and nothing uses them once IPVS is empty',
      advice: '',
    },
  ];
}

function connections({ ours }: IpvsFacts): MovingRow {
  let [active, inactive, busy] = [0, 0, 0];
  for (const { endpoints } of ours) {
    const [open, closing] = [sum(endpoints, 'activeConnections'), sum(endpoints, 'inactiveConnections')];
    active += open;
    inactive += closing;
    if (open + closing > 0) busy++;
  }
  return {
    topic: 'established connections',
    now: `${active} active and ${inactive} closing or UDP, through ${busy} of ${ours.length} virtual servers`,
    then:
      active + inactive === 0
        ? 'none to keep: all of IPVS goes at once'
        : `go on through IPVS until they are over, at most ${drainHours} hours; new ones do not reach it`,
    advice: active + inactive === 0 ? '' : "'kube-proxy ipvs' shows what is left",
  };
}

function sum(endpoints: readonly RealServer[], what: 'activeConnections' | 'inactiveConnections'): number {
  return endpoints.reduce((total, endpoint) => total + endpoint[what], 0);
}

function idleConnections({ timeouts, conntrackTcpSeconds }: IpvsFacts): MovingRow {
  return {
    topic: 'idle TCP connections',
    now: `forgotten after ${duration(timeouts.tcpSeconds)} (IPVS)`,
    then:
      conntrackTcpSeconds === undefined
        ? 'forgotten when connection tracking does'
        : `forgotten after ${duration(conntrackTcpSeconds)} (connection tracking)`,
    advice: '',
  };
}

function schedulers({ ours }: IpvsFacts, { mode }: MovingTarget): MovingRow {
  const used = countEach(ours.map(({ server }) => server.settings.scheduler));
  const others = [...used.keys()].filter((name) => name !== 'rr');
  return {
    topic: 'choice of an endpoint',
    now: ours.length === 0 ? 'no virtual servers' : countsText(used),
    then: `at random, each endpoint as likely (mode ${mode})`,
    advice:
      others.length === 0
        ? ''
        : `${others.join(', ')}: see whether your Services rely on it; mode ipvs stays available`,
  };
}

/** Somebody gave endpoints weights: all that we and upstream give are 0 and 1. */
function weights({ ours }: IpvsFacts): MovingRow[] {
  const given = ours.flatMap(({ server, endpoints, name }) =>
    endpoints
      .filter(({ settings }) => settings.weight > 1)
      .map(
        ({ key, settings }) =>
          `${key.address}:${key.port} of ${name ?? describeKey(server.key)}: ${settings.weight}`,
      ),
  );
  const ways = ours.flatMap(({ server, endpoints, name }) =>
    endpoints.some(({ settings }) => settings.forwarding !== FORWARDING.masquerade)
      ? [name ?? describeKey(server.key)]
      : [],
  );
  return [
    ...row(
      given,
      'weights given by hand',
      'are gone: all endpoints count the same',
      'more pods for those that bear more',
    ),
    ...row(ways, 'endpoints without masquerading', 'reached by translated addresses, as all', ''),
  ];
}

function affinity({ ours }: IpvsFacts): MovingRow[] {
  const sticky = ours.filter(({ server }) => (server.settings.flags & IPVS_SVC_F.persistent) !== 0);
  if (sticky.length === 0) return [];
  return [
    {
      topic: 'session affinity',
      now: `${serversText(sticky.length)}, kept until ${duration(Math.max(...sticky.map(({ server }) => server.settings.timeoutSeconds)))} after the last connection ended`,
      then: 'clients are given an endpoint anew, once; then kept so long after their last new connection',
      advice: '',
    },
  ];
}

function addresses({ serviceAddresses }: IpvsFacts): MovingRow {
  return {
    topic: 'service addresses',
    now: `${serviceAddresses.length} on interface kube-ipvs0, so they count as the node's own; ping and other ports are refused`,
    then: 'on no interface; cluster IPs still refuse ping and other ports',
    advice: serviceAddresses.length === 0 ? '' : 'tools that look for kube-ipvs0 find nothing',
  };
}

function externalAddresses({ externalAddresses: external, arp }: IpvsFacts): MovingRow[] {
  const strict = arp !== undefined && arp.ignore > 0;
  return row(
    external,
    'external and load balancer IPs',
    'the node answers no ARP or neighbour requests for them, and ping goes where routes lead',
    strict
      ? ''
      : 'whoever relied on this node to answer for them needs a route or a load balancer that announces them',
  );
}

function strictArp({ arp }: IpvsFacts): MovingRow[] {
  if (arp === undefined || (arp.ignore === 0 && arp.announce === 0)) return [];
  return [
    {
      topic: 'strict ARP',
      now: `net.ipv4.conf.all.arp_ignore=${arp.ignore}, arp_announce=${arp.announce}`,
      then: 'stays as it is; not needed, as addresses of Services are on no interface',
      advice: 'set both to 0 if nothing else wants them',
    },
  ];
}

function nodePorts({ ours, nodeAddresses }: IpvsFacts, target: MovingTarget): MovingRow {
  const node = new Set(nodeAddresses);
  const now = new Set(
    ours.flatMap(({ server: { key } }) => ('address' in key && node.has(key.address) ? [key.address] : [])),
  );
  const loopback = target.localhostNodePorts ? ', 127.0.0.1 too' : ', not on loopback addresses';
  const { nodePortAddresses: wanted } = target;
  const primary = wanted.includes('primary');
  return {
    topic: 'node ports',
    now: now.size === 0 ? 'none' : `on ${shorten([...now])}; not on loopback addresses`,
    then:
      (wanted.length === 0
        ? 'on all addresses of the node'
        : primary
          ? "on the node's primary addresses only"
          : `on the node's addresses in ${wanted.join(', ')}`) + loopback,
    advice:
      primary && now.size > 1 ? 'nodePortAddresses: ["0.0.0.0/0", "::/0"] keeps them on all addresses' : '',
  };
}

function others({ others: number }: IpvsFacts, { excludeCIDRs }: MovingTarget): MovingRow[] {
  if (number === 0 && excludeCIDRs.length === 0) return [];
  return [
    {
      topic: 'virtual servers of others',
      now: `${number}${excludeCIDRs.length === 0 ? '' : `; excludeCIDRs: ${excludeCIDRs.join(', ')}`}`,
      then: 'are left alone, wherever they are',
      advice: '',
    },
  ];
}

function row(items: readonly string[], topic: string, then: string, advice: string): MovingRow[] {
  return items.length === 0 ? [] : [{ topic, now: shorten(items), then, advice }];
}

function shorten(items: readonly string[]): string {
  const rest = items.length - shownItems;
  return items.slice(0, shownItems).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

function countEach(items: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return counts;
}

function countsText(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, number]) => `${name} (${serversText(number)})`).join(', ');
}

function serversText(number: number): string {
  return `${number} virtual server${number === 1 ? '' : 's'}`;
}

/** '900 s', '15 min', '5 days' */
function duration(seconds: number): string {
  if (seconds % 86_400 === 0 && seconds > 0) return `${seconds / 86_400} day${seconds === 86_400 ? '' : 's'}`;
  if (seconds % 3_600 === 0 && seconds > 0) return `${seconds / 3_600} h`;
  return seconds % 60 === 0 && seconds > 0 ? `${seconds / 60} min` : `${seconds} s`;
}
