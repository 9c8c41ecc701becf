/**
 * The network of the conformance cases, in namespaces:
 *
 *                  eth0 ── birch          hosts birch and cedar, a pod client on birch, a neighbour
 *                  eth1 ── outside        external clients
 *      alder       eth2 ── elsewhere      alder's default route: answers for every address that nobody else has
 *   (under test)   eth3 ── remote-pods    endpoints on birch and cedar
 *                  veth9 ─ local-clients  pod clients on alder
 *                  veth8 ─ local-pods     endpoints on alder
 *                  br-pods bridge-pods    a pod client behind a bridge
 *
 * Clients and endpoints never share a namespace, and alder is everybody's only gateway: replies pass it as well, so
 * that every handshake completes whether or not the source was kept. Many pods live in one namespace, as routes of
 * type local; the kernel of alder sees no difference.
 */
import { NamespaceAgent } from './namespace-agent.js';
import { run, runQuietly } from './commands.js';
import type { Place } from './addresses.js';
import type { Protocol } from './protocol.js';
import { nodeAddress, ownedPrefixes, places, secondAddress } from './addresses.js';

interface Link {
  readonly place: Exclude<Place, 'alder'>;
  /** Name of the interface on alder. */
  readonly port: string;
  /** Addresses of alder on it, and what its peer uses as its gateway. */
  readonly v4: string;
  readonly v6: string;
  readonly gateway: string;
  /** Destinations that alder reaches through it, besides what the place owns. */
  readonly routes: { readonly v4: readonly string[]; readonly v6: readonly string[] };
}

const links: readonly Link[] = [
  {
    place: 'birch',
    port: 'eth0',
    v4: `${nodeAddress.v4}/24`,
    v6: `${nodeAddress.v6}/64`,
    gateway: nodeAddress.v4,
    routes: { v4: [], v6: [] },
  },
  {
    place: 'outside',
    port: 'eth1',
    v4: `${secondAddress.v4}/24`,
    v6: `${secondAddress.v6}/64`,
    gateway: secondAddress.v4,
    routes: { v4: [], v6: [] },
  },
  {
    place: 'elsewhere',
    port: 'eth2',
    v4: `${nodeAddress.v4}/32`,
    v6: `${nodeAddress.v6}/128`,
    gateway: nodeAddress.v4,
    routes: { v4: ['0.0.0.0/0'], v6: ['::/0'] },
  },
  {
    place: 'remote-pods',
    port: 'eth3',
    v4: `${nodeAddress.v4}/32`,
    v6: `${nodeAddress.v6}/128`,
    gateway: nodeAddress.v4,
    routes: { v4: [], v6: [] },
  },
  {
    place: 'local-clients',
    port: 'veth9',
    v4: `${nodeAddress.v4}/32`,
    v6: `${nodeAddress.v6}/128`,
    gateway: nodeAddress.v4,
    routes: { v4: [], v6: [] },
  },
  {
    place: 'local-pods',
    port: 'veth8',
    v4: `${nodeAddress.v4}/32`,
    v6: `${nodeAddress.v6}/128`,
    gateway: nodeAddress.v4,
    routes: { v4: [], v6: [] },
  },
  {
    place: 'bridge-pods',
    port: 'br-pods',
    v4: `${nodeAddress.v4}/32`,
    v6: `${nodeAddress.v6}/128`,
    gateway: nodeAddress.v4,
    routes: { v4: [], v6: [] },
  },
];

/** Same on every link: the peer's own address, which nothing but neighbour discovery uses. */
const peer = { v4: '169.254.7.2', v6: 'fe80::2', gatewayV6: 'fe80::1' };

/** Where `elsewhere` listens. SCTP takes no association from a private address at one of link scope, as peer.v4 is. */
const catchAll = { v4: '100.64.99.2', v6: '2001:db8:ffff::2' };

/** The port in `elsewhere` to which every foreign address and port is redirected. */
export const elsewherePort = 7777;

/** Without these the ICMP errors that tell REJECT from DROP would be rate limited. */
const commonSysctls: Readonly<Record<string, string>> = {
  'net/ipv4/icmp_ratelimit': '0',
  'net/ipv4/icmp_ratemask': '0',
  'net/ipv6/icmp/ratelimit': '0',
  'net/ipv4/ip_nonlocal_bind': '1',
  'net/ipv6/ip_nonlocal_bind': '1',
  'net/ipv4/ping_group_range': '0 2147483647',
};

const alderSysctls: Readonly<Record<string, string>> = {
  'net/ipv4/conf/all/forwarding': '1',
  'net/ipv6/conf/all/forwarding': '1',
  'net/ipv4/conf/all/rp_filter': '0',
  'net/ipv4/conf/default/rp_filter': '0',
  'net/ipv4/conf/all/send_redirects': '0',
  // Node ports start at 30000; what alder connects from must not take them.
  'net/ipv4/ip_local_port_range': '40000 60999',
};

const clientSysctls: Readonly<Record<string, string>> = { 'net/ipv4/ip_local_port_range': '2048 65000' };

/** Redirects whatever arrives in `elsewhere` to its one listener. */
const elsewhereRules = `
table inet catch-all {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    meta nfproto ipv4 meta l4proto { tcp, udp, sctp } dnat ip to ${catchAll.v4}:${elsewherePort}
    meta nfproto ipv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    meta nfproto ipv6 meta l4proto { tcp, udp, sctp } dnat ip6 to [${catchAll.v6}]:${elsewherePort}
  }
}`;

/** Remembers what arrived, before anything in the namespace may drop it. Read by Topology.arrivals. */
const recorderRules = `
table inet recorder {
  set arrived4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }
  set arrived6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags dynamic; size 65535; }
  set stray4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 1024; }
  set stray6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags dynamic; size 1024; }
  chain prerouting {
    type filter hook prerouting priority raw;
    ip dscp 42 update @stray4 { ip saddr . ip daddr . meta l4proto . th dport }
    ip6 dscp 42 update @stray6 { ip6 saddr . ip6 daddr . meta l4proto . th dport }
    meta nfproto ipv4 meta l4proto { tcp, udp, sctp } update @arrived4 { ip saddr . ip daddr . meta l4proto . th dport }
    meta nfproto ipv6 meta l4proto { tcp, udp, sctp } update @arrived6 { ip6 saddr . ip6 daddr . meta l4proto . th dport }
  }
}`;

export interface Arrival {
  readonly source: string;
  readonly target: string;
  readonly port: number;
}

export class Topology {
  private readonly prefix: string;
  readonly agents: ReadonlyMap<Place, NamespaceAgent>;

  private constructor(prefix: string, agents: ReadonlyMap<Place, NamespaceAgent>) {
    this.prefix = prefix;
    this.agents = agents;
  }

  namespace(place: Place): string {
    return `${this.prefix}-${place}`;
  }

  agent(place: Place): NamespaceAgent {
    return this.agents.get(place)!;
  }

  /**
   * Takes well under a second. Everything made is removed by destroy(), or by a later run of removeStale().
   * @param protocols in which foreign addresses answer
   */
  static async build(job: number, protocols: readonly Protocol[] = ['TCP', 'UDP']): Promise<Topology> {
    const prefix = `kpc-${process.pid}-${job}`;
    const name = (place: Place): string => `${prefix}-${place}`;
    const agents = new Map<Place, NamespaceAgent>();
    try {
      await allSettled(places.map((place) => run('ip', ['netns', 'add', name(place)])));
      for (const place of places) agents.set(place, new NamespaceAgent(name(place), place));
      await run('ip', ['-batch', '-'], linkCommands(name));
      await allSettled([
        ...places.map((place) => run('ip', ['-n', name(place), '-batch', '-'], addressCommands(place))),
        run('ip', ['netns', 'exec', name('elsewhere'), 'nft', '-f', '-'], elsewhereRules),
        run('ip', ['netns', 'exec', name('local-pods'), 'nft', '-f', '-'], recorderRules),
        run('ip', ['netns', 'exec', name('remote-pods'), 'nft', '-f', '-'], recorderRules),
        ...places.map((place) =>
          agents.get(place)!.request({
            op: 'sysctl',
            values: { ...commonSysctls, ...(place === 'alder' ? alderSysctls : clientSysctls) },
          }),
        ),
      ]);
      await allSettled(
        places.map((place) => run('ip', ['-n', name(place), '-batch', '-'], routeCommands(place))),
      );
      await agents.get('elsewhere')!.request({
        op: 'listen',
        sockets: protocols.flatMap((protocol) => [
          { protocol, address: catchAll.v4, port: elsewherePort },
          { protocol, address: catchAll.v6, port: elsewherePort },
        ]),
      });
      return new Topology(prefix, agents);
    } catch (error) {
      await Promise.all([...agents.values()].map((agent) => agent.stop()));
      await removeNamespaces(prefix);
      throw error;
    }
  }

  async destroy(): Promise<void> {
    await Promise.all([...this.agents.values()].map((agent) => agent.stop()));
    await removeNamespaces(this.prefix);
  }

  /** Runs a tool inside a namespace. */
  exec(place: Place, command: string, args: readonly string[], input = ''): Promise<string> {
    return run('ip', ['netns', 'exec', this.namespace(place), command, ...args], input);
  }

  /** Forgets every connection that alder tracks, so that the next packet of each is the first of a new one. */
  async forgetConnections(): Promise<void> {
    await this.agent('alder').request({ op: 'forget-connections' });
  }

  async forgetArrivals(): Promise<void> {
    const flush =
      'flush set inet recorder arrived4; flush set inet recorder arrived6\nflush set inet recorder stray4; flush set inet recorder stray6\n';
    await Promise.all(
      (['local-pods', 'remote-pods'] as const).map((place) => this.exec(place, 'nft', ['-f', '-'], flush)),
    );
  }

  /** First packets that reached the namespace of an endpoint, answered or not. `stray`: those with DSCP 42. */
  async arrivals(place: 'local-pods' | 'remote-pods', stray = false): Promise<readonly Arrival[]> {
    const lists = await Promise.all(
      ['4', '6'].map((family) =>
        this.exec(place, 'nft', [
          '-j',
          'list',
          'set',
          'inet',
          'recorder',
          `${stray ? 'stray' : 'arrived'}${family}`,
        ]),
      ),
    );
    return lists.flatMap(readArrivals);
  }
}

/** Waits for all, also when one has failed: nothing may still be under way when the namespaces are removed. */
async function allSettled(work: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work))
    if (outcome.status === 'rejected') throw outcome.reason;
}

/** The elements of one recorder set, as `nft -j list set` prints them. */
function readArrivals(json: string): Arrival[] {
  const document = JSON.parse(json) as {
    nftables: readonly { set?: { elem?: readonly { concat?: readonly (string | number)[] }[] } }[];
  };
  const found: Arrival[] = [];
  for (const { set } of document.nftables) {
    for (const { concat } of set?.elem ?? []) {
      if (concat === undefined) continue;
      const [source, target, , port] = concat;
      found.push({ source: String(source), target: String(target), port: Number(port) });
    }
  }
  return found;
}

function linkCommands(name: (place: Place) => string): string {
  const lines = [`link add br-pods netns ${name('alder')} type bridge`];
  for (const { place, port } of links) {
    const alderSide = port === 'br-pods' ? 'brport' : port;
    lines.push(`link add ${alderSide} netns ${name('alder')} type veth peer name up0 netns ${name(place)}`);
  }
  return `${lines.join('\n')}\n`;
}

function addressCommands(place: Place): string {
  const lines = ['link set lo up'];
  if (place === 'alder') {
    lines.push('link set brport master br-pods', 'link set brport addrgenmode none', 'link set brport up');
    for (const link of links) {
      lines.push(
        `link set ${link.port} addrgenmode none`,
        `link set ${link.port} up`,
        `addr add ${link.v4} dev ${link.port}`,
        `addr add ${link.v6} dev ${link.port} nodad`,
        `addr add ${peer.gatewayV6}/64 dev ${link.port} nodad`,
      );
    }
  } else {
    lines.push(
      'link set up0 addrgenmode none',
      'link set up0 up',
      `addr add ${peer.v4}/32 dev up0`,
      `addr add ${peer.v6}/64 dev up0 nodad`,
      `addr add ${catchAll.v6}/128 dev up0 nodad`,
    );
    if (place === 'elsewhere') lines.push(`addr add ${catchAll.v4}/32 dev lo`);
  }
  return `${lines.join('\n')}\n`;
}

function routeCommands(place: Place): string {
  const lines: string[] = [];
  if (place === 'alder') {
    for (const { place: to, port, routes } of links) {
      const owned = to === 'elsewhere' ? { v4: [], v6: [] } : ownedPrefixes[to];
      for (const prefix of [...owned.v4, ...routes.v4]) {
        lines.push(`route add ${prefix} via ${peer.v4} dev ${port} onlink src ${nodeAddress.v4}`);
      }
      for (const prefix of [...owned.v6, ...routes.v6]) {
        lines.push(`route add ${prefix} via ${peer.v6} dev ${port} src ${nodeAddress.v6}`);
      }
    }
    lines.push(
      `route add 198.51.100.53/32 via ${peer.v4} dev eth2 onlink src ${nodeAddress.v4}`,
      `route add 2001:db8:f::53/128 via ${peer.v6} dev eth2 src ${nodeAddress.v6}`,
    );
  } else {
    const { gateway } = links.find((link) => link.place === place)!;
    for (const prefix of ownedPrefixes[place].v4) lines.push(`route add local ${prefix} dev lo table local`);
    for (const prefix of ownedPrefixes[place].v6) lines.push(`route add local ${prefix} dev lo table local`);
    lines.push(
      `route add default via ${gateway} dev up0 onlink`,
      `route add ::/0 via ${peer.gatewayV6} dev up0`,
    );
  }
  return `${lines.join('\n')}\n`;
}

async function namespaces(): Promise<readonly string[]> {
  const listing = await run('ip', ['netns', 'list']);
  return listing.split('\n').map((line) => line.split(' ')[0] ?? '');
}

/** Ends what still runs in a namespace of ours (a proxy that outlived its runner), then removes the namespace. */
async function removeNamespace(name: string): Promise<void> {
  const listing = await run('ip', ['netns', 'pids', name]).catch(() => '');
  for (const pid of listing.split('\n').filter((line) => line !== '')) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It ended by itself in the meantime.
    }
  }
  await runQuietly('ip', ['netns', 'del', name]);
}

async function removeNamespaces(prefix: string): Promise<void> {
  const names = (await namespaces()).filter((name) => name.startsWith(`${prefix}-`));
  await Promise.all(names.map(removeNamespace));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** @throws CommandError naming the tool that is not installed */
export async function checkTools(): Promise<void> {
  await run('ip', ['-V']);
  await run('nft', ['--version']);
}

/** Removes what runs left behind that were killed too hard to clean up: their process no longer exists. */
export async function removeStale(): Promise<void> {
  for (const name of await namespaces()) {
    const pid = /^kpc-(\d+)-\d+-/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await removeNamespace(name);
  }
}
