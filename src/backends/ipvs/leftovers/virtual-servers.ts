/**
 * What mode ipvs leaves: virtual servers, and the interface that holds their addresses. Others use IPVS too (keepalived,
 * for one), so a virtual server counts as kube-proxy's only if its address is on that interface, if it is a node port
 * that one of upstream's sets names, or if our own tables name it, or its mark is one of ours.
 */
import type { Family } from '@kube-proxy-ts/netlink';
import { IpsetConnection } from '@kube-proxy-ts/netlink/ipset';
import { describeKey, IpvsConnection, type VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { readTableServers } from './tables.js';
import { isOurMark } from '../servers/marks.js';
import { serviceInterface } from '../table/names.js';
import { count, type Report } from '../../removal-report.js';
import { nodePortSets, setNameIPv6 } from './sets.js';

/** Call it before the sets and tables are removed: they tell which virtual servers are kube-proxy's. */
export async function removeIpvs(report: Report): Promise<void> {
  await report.attempt('IPVS virtual servers', () => {
    withRoute((route) => {
      removeVirtualServers(route, report);
    });
  });
  await report.attempt(`interface ${serviceInterface}`, () => {
    withRoute((route) => {
      removeInterface(route, report);
    });
  });
}

export function withRoute<T>(use: (route: RouteConnection) => T): T {
  const route = RouteConnection.open();
  try {
    return use(route);
  } finally {
    route.close();
  }
}

function removeVirtualServers(route: RouteConnection, report: Report): void {
  const ipvs = IpvsConnection.openIfLoaded();
  const what = 'IPVS virtual servers of kube-proxy';
  if (ipvs === undefined) {
    report.absent(what);
    return;
  }
  try {
    const isOurs = servers(route);
    const ours = ipvs.listServices().filter(({ key }) => isOurs(key));
    for (const { key } of ours) ipvs.deleteService(key);
    if (ours.length === 0) report.absent(what);
    else report.removed(count(ours.length, 'IPVS virtual server'));
  } finally {
    ipvs.close();
  }
}

/** Tells virtual servers of kube-proxy, upstream's or ours, from those of others; as of now. */
export function kubeProxyServers(): (key: VirtualServerKey) => boolean {
  const route = RouteConnection.open();
  try {
    return servers(route);
  } finally {
    route.close();
  }
}

function servers(route: RouteConnection): (key: VirtualServerKey) => boolean {
  return ownership(route.listAddresses(), nodePorts(), tableServers());
}

export type NodePorts = Readonly<Record<Family, ReadonlySet<string>>>;

/** @param addresses of all interfaces */
export function ownership(
  addresses: readonly { readonly address: string; readonly interfaceName: string }[],
  nodePorts: NodePorts,
  tableServers: ReadonlySet<string>,
): (key: VirtualServerKey) => boolean {
  const service = new Set<string>();
  const node = new Set<string>();
  for (const { address, interfaceName } of addresses)
    (interfaceName === serviceInterface ? service : node).add(address);
  return (key) => {
    if ('fwmark' in key) return isOurMark(key.fwmark);
    if (tableServers.has(describeKey(key))) return true;
    if (service.has(key.address)) return true;
    return node.has(key.address) && nodePorts[key.family].has(nodePortKey(key.protocol, key.port));
  };
}

/** Virtual servers that the tables of our mode ipvs name, as describeKey() does. */
function tableServers(): ReadonlySet<string> {
  const servers = new Set<string>();
  const connection = NftablesConnection.open();
  try {
    readTableServers(connection, (key) => servers.add(describeKey(key)));
  } finally {
    connection.close();
  }
  return servers;
}

export function nodePortKey(protocol: number, port: number): string {
  return `${protocol}:${port}`;
}

function nodePorts(): NodePorts {
  const ports = { ip: new Set<string>(), ip6: new Set<string>() };
  const sets = IpsetConnection.openIfLoaded();
  if (sets === undefined) return ports;
  try {
    const names = new Set(sets.listNames());
    for (const { name, protocol } of nodePortSets) {
      for (const [family, set] of [
        ['ip', name],
        ['ip6', setNameIPv6(name)],
      ] as const) {
        if (!names.has(set)) continue;
        for (const { port } of sets.listEntries(set))
          if (port !== undefined) ports[family].add(nodePortKey(protocol, port));
      }
    }
  } finally {
    sets.close();
  }
  return ports;
}

export function removeInterface(route: RouteConnection, report: Report): void {
  const what = `interface ${serviceInterface}`;
  const link = route.listLinks().find(({ name }) => name === serviceInterface);
  if (link === undefined) report.absent(what);
  else if (link.kind !== 'dummy')
    report.kept(what, `it is of kind ${link.kind ?? 'unknown'}, and kube-proxy's is of kind dummy`);
  else if (route.deleteLink(link)) report.removed(what);
  else report.absent(what);
}
