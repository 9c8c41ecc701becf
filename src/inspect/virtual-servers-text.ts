/** Virtual servers as a table for people: a line for each, and below it a line for each of its endpoints. */
import { formatIpPort } from '../model/addresses/addresses.js';
import { table, type Column } from './table.js';
import type { EndpointView, VirtualServerView } from './virtual-servers.js';

const columns: readonly Column[] = [
  { title: 'PROTO' },
  { title: 'VIRTUAL SERVER' },
  { title: 'SERVICE PORT, POD' },
  { title: 'SCHEDULER' },
  { title: 'WEIGHT', align: 'right' },
  { title: 'ACTIVE', align: 'right' },
  { title: 'INACTIVE', align: 'right' },
  { title: 'NOTES' },
];

export function virtualServersText(servers: readonly VirtualServerView[]): string {
  return table(
    columns,
    servers.flatMap((server) => [serverRow(server), ...server.endpoints.map(endpointRow)]),
  );
}

function serverRow(server: VirtualServerView): string[] {
  const sum = (of: (endpoint: EndpointView) => number): string =>
    String(server.endpoints.reduce((total, endpoint) => total + of(endpoint), 0));
  const notes = [
    ...(server.owner === 'other' ? ["not kube-proxy's"] : []),
    ...(server.mark === undefined ? [] : ['for pods and this node']),
    ...(server.affinitySeconds === 0 ? [] : [`affinity ${server.affinitySeconds} s`]),
    ...server.schedulerFlags,
    ...(server.endpoints.some(({ state }) => state === 'serving') ? [] : ['takes no new connections']),
  ];
  return [
    server.protocol,
    server.mark === undefined
      ? formatIpPort(server.address, server.port)
      : `mark 0x${server.mark.toString(16)}${server.family === 'IPv6' ? ' (IPv6)' : ''}`,
    server.servicePort ?? '',
    server.scheduler,
    '',
    sum(({ activeConnections }) => activeConnections),
    sum(({ inactiveConnections }) => inactiveConnections),
    notes.join(', '),
  ];
}

function endpointRow(endpoint: EndpointView): string[] {
  const { state, forwarding, persistentConnections } = endpoint;
  const notes = [
    ...(state === 'draining' ? ['draining'] : []),
    ...(persistentConnections === 0 ? [] : [`affinity of ${persistentConnections}`]),
    ...(forwarding === 'masquerade' ? [] : [forwarding]),
  ];
  return [
    '',
    `-> ${formatIpPort(endpoint.address, endpoint.port)}`,
    endpoint.pod ?? '',
    '',
    String(endpoint.weight),
    String(endpoint.activeConnections),
    String(endpoint.inactiveConnections),
    notes.join(', '),
  ];
}
