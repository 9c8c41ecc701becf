/**
 * Connections that mode ipvs, upstream's or ours, has left to a mode that translates in connection tracking. IPVS itself
 * knows where their packets go, so its virtual servers stay for as long as they have connections: with weight 0, and with
 * their addresses on kube-ipvs0, without which the packets would not come to IPVS. New connections do not get there, because
 * the other mode translates them before the kernel asks whether an address is its own.
 *
 * Meanwhile a table of our own mode ipvs' name stands beside them, with less in it: it knows which virtual servers these are,
 * also after a restart, refuses what nobody serves on their addresses, and masquerades what processes of this host send
 * from them.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Family, NetlinkError, parseAddress } from '@kube-proxy-ts/netlink';
import {
  describeKey,
  IpvsConnection,
  type RealServer,
  type VirtualServerKey,
} from '@kube-proxy-ts/netlink/ipvs';
import {
  Batch,
  CT_STATE,
  expr,
  type Expression,
  loadFields,
  type NftablesConnection,
  PORT_UNREACHABLE,
  selectors,
} from '@kube-proxy-ts/netlink/nftables';
import type { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { addressesOfSockets } from './local-sockets.js';
import { hostUint32, readTableServers, serviceKey } from './tables.js';
import { kubeProxyServers, removeInterface, withRoute } from './virtual-servers.js';
import { maps, serviceInterface, sets, tableName } from '../table/names.js';
import { removeNftablesTable } from '../../nft/remove-tables.js';
import { count, type Report } from '../../removal-report.js';

/** After so long the connections that are left are given up. */
const limitMs = 24 * 3_600_000;
/** Virtual servers that are looked at between two turns of the event loop. */
const serversPerTurn = 200;
const commentPrefix = 'connections that mode ipvs left, since ';

interface AddressServer {
  readonly family: Family;
  readonly protocol: number;
  readonly address: string;
  readonly port: number;
}

/** What our table knows of virtual servers, as of the beginning of a step. */
interface Known {
  /** By describeKey(). */
  readonly names: ReadonlyMap<string, string | undefined>;
  /** By family and mark: addresses that lead to it. */
  readonly addressesOfMark: ReadonlyMap<string, readonly AddressServer[]>;
}

interface Busy {
  readonly key: VirtualServerKey;
  readonly connections: number;
}

export interface Draining {
  readonly servers: number;
  readonly connections: number;
}

export class IpvsDrain {
  /** What was written last, by family. */
  private readonly written = new Map<Family, string>();
  private underWay: Promise<Draining | undefined> | undefined;

  constructor(
    private readonly nft: () => NftablesConnection,
    private readonly now: () => number = Date.now,
  ) {}

  /**
   * Removes what has no connections (any more).
   * @returns what is left; undefined: nothing, all of mode ipvs is gone
   */
  step(report: Report): Promise<Draining | undefined> {
    this.underWay ??= this.remove(report).finally(() => (this.underWay = undefined));
    return this.underWay;
  }

  private async remove(report: Report): Promise<Draining | undefined> {
    let draining: Draining | undefined;
    await report.attempt('IPVS virtual servers', async () => {
      const what = 'IPVS virtual servers of kube-proxy';
      const ipvs = IpvsConnection.openIfLoaded();
      if (ipvs === undefined) {
        report.absent(what);
        return;
      }
      const nft = this.nft();
      try {
        const known = readKnown(nft);
        const since = drainingSince(nft) ?? this.now();
        const isOurs = kubeProxyServers();
        const ours = ipvs
          .listServices()
          .map(({ key }) => key)
          .filter((key) => isOurs(key));
        const isOver = this.now() - since >= limitMs;
        const busy = await removeIdle(ipvs, ours, isOver);
        if (busy.length < ours.length)
          report.removed(count(ours.length - busy.length, 'IPVS virtual server'));
        else if (ours.length === 0) report.absent(what);
        const connections = busy.reduce((sum, one) => sum + one.connections, 0);
        const servers = keptServers(busy, known);
        const addresses = isOver ? [] : withRoute((route) => keepAddresses(route, servers));
        if (busy.length + addresses.length === 0) return;
        draining = { servers: busy.length, connections };
        const kept = { ...servers, addresses };
        for (const family of ['ip', 'ip6'] as const) this.writeTable(nft, family, kept, known, since);
        report.draining(
          `${count(connections, 'connection')} through ${count(busy.length, 'IPVS virtual server')}, ${count(addresses.length, 'address')} on ${serviceInterface}`,
        );
      } finally {
        nft.close();
        ipvs.close();
      }
    });
    if (draining === undefined) await this.removeRest(report);
    return draining;
  }

  private async removeRest(report: Report): Promise<void> {
    this.written.clear();
    await report.attempt(`interface ${serviceInterface}`, () => {
      withRoute((route) => {
        removeInterface(route, report);
      });
    });
    await report.attempt(`nftables table ${tableName}`, async () => {
      const nft = this.nft();
      try {
        await removeNftablesTable(nft, tableName, report);
      } finally {
        nft.close();
      }
    });
  }

  private writeTable(nft: NftablesConnection, family: Family, kept: Kept, known: Known, since: number): void {
    const servers = [...kept.servers.values()].filter((server) => server.family === family);
    const marks = kept.marks.filter((mark) => mark.server.family === family);
    const addresses = kept.addresses.filter((address) => address.includes(':') === (family === 'ip6'));
    const signature = JSON.stringify([servers, marks, addresses]);
    if (this.written.get(family) === signature) return;
    const batch = new Batch(family, tableName);
    const exists = nft.listTables(family).some(({ name }) => name === tableName);
    if (exists) batch.deleteTable();
    if (servers.length + addresses.length > 0) {
      batch.addTable({ comment: commentPrefix + new Date(since).toISOString() });
      addLayout(batch, family);
      for (const server of servers) {
        const name = known.names.get(describeKey(server));
        batch.addElement(
          sets.serviceIPs,
          serviceKey(server),
          undefined,
          name === undefined ? {} : { comment: name },
        );
      }
      for (const { server, mark } of marks)
        batch.addElement(maps.shortCircuits, serviceKey(server), hostUint32(mark));
      for (const address of addresses) batch.addElement(sets.boundIPs, parseAddress(address));
    }
    if (!batch.isEmpty) nft.commit(batch);
    this.written.set(family, signature);
  }
}

/** Where connections of virtual servers that stay go to. */
interface KeptServers {
  /** By describeKey(). */
  readonly servers: ReadonlyMap<string, AddressServer>;
  readonly marks: readonly { readonly server: AddressServer; readonly mark: number }[];
}

interface Kept extends KeptServers {
  /** On the interface, of both families. */
  readonly addresses: readonly string[];
}

function keptServers(busy: readonly Busy[], { addressesOfMark }: Known): KeptServers {
  const servers = new Map<string, AddressServer>();
  const marks: { server: AddressServer; mark: number }[] = [];
  for (const { key } of busy) {
    if ('address' in key) servers.set(describeKey(key), key);
    else
      for (const server of addressesOfMark.get(markId(key.family, key.fwmark)) ?? []) {
        servers.set(describeKey(server), server);
        marks.push({ server, mark: key.fwmark });
      }
  }
  return { servers, marks };
}

function markId(family: Family, mark: number): string {
  return `${family} ${mark}`;
}

function readKnown(nft: NftablesConnection): Known {
  const names = new Map<string, string | undefined>();
  const addressesOfMark = new Map<string, AddressServer[]>();
  readTableServers(
    nft,
    (key, name) => names.set(describeKey(key), name),
    (server, mark) => {
      const id = markId(server.family, mark);
      const list = addressesOfMark.get(id) ?? [];
      if (!('address' in server)) return;
      list.push(server);
      addressesOfMark.set(id, list);
    },
  );
  return { names, addressesOfMark };
}

/** When the first step was, told by the table; undefined: this is it. */
function drainingSince(nft: NftablesConnection): number | undefined {
  for (const { name, comment } of nft.listTables()) {
    if (name !== tableName || comment?.startsWith(commentPrefix) !== true) continue;
    const since = Date.parse(comment.slice(commentPrefix.length));
    if (!Number.isNaN(since)) return since;
  }
  return undefined;
}

/**
 * Deletes virtual servers without connections, and endpoints without from the others; what stays gets weight 0.
 * @param all whether those with connections go, too
 */
async function removeIdle(
  ipvs: IpvsConnection,
  keys: readonly VirtualServerKey[],
  all: boolean,
): Promise<Busy[]> {
  const busy: Busy[] = [];
  for (const [index, key] of keys.entries()) {
    if (index % serversPerTurn === serversPerTurn - 1) await nextTurn();
    const destinations = all ? [] : destinationsOf(ipvs, key);
    const connections = destinations.reduce((sum, destination) => sum + connectionsOf(destination), 0);
    if (connections === 0) {
      ipvs.deleteService(key);
      continue;
    }
    busy.push({ key, connections });
    for (const destination of destinations) {
      const { settings } = destination;
      if (connectionsOf(destination) === 0) ipvs.deleteDestination(key, destination.key);
      else if (settings.weight > 0) ipvs.changeDestination(key, destination.key, { ...settings, weight: 0 });
    }
  }
  return busy;
}

function connectionsOf({ activeConnections, inactiveConnections }: RealServer): number {
  return activeConnections + inactiveConnections;
}

function destinationsOf(ipvs: IpvsConnection, key: VirtualServerKey): RealServer[] {
  try {
    return ipvs.listDestinations(key);
  } catch (error) {
    // Somebody else deleted it.
    if (error instanceof NetlinkError && ['ESRCH', 'ENOENT'].includes(error.code)) return [];
    throw error;
  }
}

/**
 * Takes all addresses off the interface but those that connections need: of the servers that stay, and those that processes of
 * this host have as their own. (The kernel lets who connects to an address of this host come from there.)
 * @returns those that stay
 */
function keepAddresses(route: RouteConnection, { servers }: KeptServers): string[] {
  const needed = new Set([...servers.values()].map(({ address }) => address));
  for (const address of addressesOfSockets()) needed.add(address);
  const bound = route
    .listAddresses()
    .filter(({ interfaceName, scope }) => interfaceName === serviceInterface && scope !== 'link');
  route.changeAddresses(
    bound
      .filter(({ address }) => !needed.has(address))
      .map(({ family, address, prefixLength, interfaceIndex }) => ({
        do: 'delete',
        family,
        address,
        prefixLength,
        interfaceIndex,
      })),
  );
  return bound.map(({ address }) => address).filter((address) => needed.has(address));
}

function addLayout(batch: Batch, family: Family): void {
  const [saddr, daddr] =
    family === 'ip' ? [selectors.ipSaddr, selectors.ipDaddr] : [selectors.ip6Saddr, selectors.ip6Daddr];
  const service = [daddr, selectors.l4proto, selectors.thDport];
  batch.addSet({ name: sets.serviceIPs, key: service });
  batch.addSet({ name: sets.boundIPs, key: [daddr] });
  batch.addSet({ name: maps.shortCircuits, key: service, value: [selectors.mark] });
  // Behind the chains of the mode that runs, which may want to drop in silence, and behind IPVS (98 and 99): should upstream's mode
  // ipvs take over, what it serves at these addresses does not come here.
  batch.addChain('filter-input', {
    base: { type: 'filter', hook: 'input', priority: 101, policy: 'accept' },
  });
  batch.addRule('filter-input', [
    ...ctStateNew,
    ...loadFields([daddr], 0),
    expr.lookup(sets.boundIPs, 0),
    expr.reject('icmp', PORT_UNREACHABLE[family]),
  ]);
  batch.addChain('nat-postrouting', {
    base: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
  });
  batch.addRule('nat-postrouting', [
    ...loadFields([saddr], 0),
    expr.lookup(sets.boundIPs, 0),
    expr.masquerade({ flags: ['fully-random'] }),
  ]);
}

const ctStateNew: readonly Expression[] = [
  expr.ct('state', 0),
  expr.bitwise(0, 0, hostUint32(CT_STATE.new), hostUint32(0)),
  expr.cmp('neq', 0, hostUint32(0)),
];
