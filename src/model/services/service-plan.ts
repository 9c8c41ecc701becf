/**
 * What one Service asks for, per family, before endpoints are known (service-model.md 2, 6.5, 8.1): its service
 * ports with every address they want, validated and canonical. Everything a Service object can say that matters
 * to the proxy is in the plan, so two objects with equal plans are the same to it.
 */
import type { IPFamily, Service, ServicePortSpec } from '../../sources/objects.js';
import {
  cidrContains,
  familyOf,
  hostCidr,
  parseAddress,
  parseCidr,
  specialUse,
  type ParsedCidr,
} from '../addresses/addresses.js';
import { maxServiceAddresses, maxServiceSources } from './limits.js';
import { compact } from '../lists.js';
import { sameCidr, type FamilyPlan, type PortPlan, type ServicePlan } from './plan.js';
import { Problems, quoted } from './problems.js';
import type { AddressKind, Cidr, VirtualAddress } from '../types.js';

/** Affinity timeout of a Service that asks for ClientIP without saying how long (API default). */
const defaultAffinitySeconds = 10800;
const maxAffinitySeconds = 86400;
const maxPort = 65535;

export interface PlanOptions {
  readonly families: readonly IPFamily[];
  readonly nodeIPs: { readonly IPv4?: string; readonly IPv6?: string };
  /** Gate AllowServiceExternalIPs. */
  readonly externalIPs: boolean;
}

export interface PlanResult {
  /** undefined: the proxy has nothing to do with this Service. */
  readonly plan: ServicePlan | undefined;
  readonly problems: Problems;
}

const noProblems = new Problems();
const noPlan: PlanResult = { plan: undefined, problems: noProblems };

export function planService(service: Service, options: PlanOptions): PlanResult {
  if (service.serviceProxyName !== undefined) return noPlan;
  if (service.clusterIP === '' || service.clusterIP === 'None') return noPlan;
  if (service.type === 'ExternalName') return noPlan;

  const problems = new Problems();
  const report: Report = (field, message) => {
    problems.add(field, message);
  };
  const externalLocal = isExternalPolicyLocal(service);
  const wishes: Wishes = {
    service,
    options,
    report,
    ports: readPorts(service, report),
    externalAddresses: readExternalAddresses(service, options, report),
    sourceRanges: readSourceRanges(service, report),
    affinitySeconds: readAffinity(service, report),
    internalLocal: service.internalTrafficPolicy === 'Local',
    externalLocal,
    healthCheckNodePort: externalLocal ? readHealthCheckNodePort(service, report) : 0,
  };

  const plans: Record<IPFamily, FamilyPlan | undefined> = { IPv4: undefined, IPv6: undefined };
  for (const family of options.families) plans[family] = planFamily(wishes, family);
  const created = Date.parse(service.creationTimestamp);
  return {
    plan:
      plans.IPv4 === undefined && plans.IPv6 === undefined
        ? undefined
        : {
            created: Number.isNaN(created) ? Infinity : created,
            ...plans,
          },
    problems,
  };
}

type Report = (field: string, message: () => string) => void;

/** One Service as far as both families share it. */
interface Wishes {
  readonly service: Service;
  readonly options: PlanOptions;
  readonly report: Report;
  readonly ports: readonly ServicePortSpec[];
  readonly externalAddresses: readonly WantedAddress[];
  /** undefined: the Service does not restrict its sources. */
  readonly sourceRanges: readonly ParsedCidr[] | undefined;
  readonly affinitySeconds: number;
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  readonly healthCheckNodePort: number;
}

interface WantedAddress {
  readonly kind: 'LoadBalancerIP' | 'ExternalIP';
  readonly family: IPFamily;
  readonly ip: string;
}

const noAddresses: readonly WantedAddress[] = [];

function isExternalPolicyLocal(service: Service): boolean {
  if (service.externalTrafficPolicy !== 'Local') return false;
  if (service.type === 'LoadBalancer' || service.type === 'NodePort') return true;
  // The specification counts, even when the gate suppresses external IPs.
  return service.type === 'ClusterIP' && service.externalIPs.length > 0;
}

function readPorts(service: Service, report: Report): readonly ServicePortSpec[] {
  const [only] = service.ports;
  if (service.ports.length === 1 && only !== undefined && isPort(only.port)) {
    if (only.nodePort === 0 || isPort(only.nodePort)) return service.ports;
  }
  const ports = new Map<string, ServicePortSpec>();
  for (const [index, spec] of service.ports.entries()) {
    if (!isPort(spec.port)) {
      report(
        `spec.ports[${index}].port`,
        () => `${spec.port} is not a port number (1-65535); the port is left out`,
      );
      continue;
    }
    let nodePort = spec.nodePort;
    if (nodePort !== 0 && !isPort(nodePort)) {
      report(
        `spec.ports[${index}].nodePort`,
        () => `${spec.nodePort} is not a port number (1-65535); no node port is opened`,
      );
      nodePort = 0;
    }
    // The API forbids two ports of one name and protocol. If it happens, the last one wins.
    ports.set(`${spec.name}/${spec.protocol}`, { ...spec, nodePort });
  }
  return [...ports.values()];
}

function readAffinity(service: Service, report: Report): number {
  if (service.sessionAffinity !== 'ClientIP') return 0;
  const seconds = service.affinityTimeoutSeconds ?? defaultAffinitySeconds;
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= maxAffinitySeconds) return seconds;
  report(
    'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    () =>
      `${seconds} is not within 1-${maxAffinitySeconds} seconds; the default of ${defaultAffinitySeconds} is used`,
  );
  return defaultAffinitySeconds;
}

/** External IPs and load balancer VIPs of both families. */
function readExternalAddresses(
  service: Service,
  options: PlanOptions,
  report: Report,
): readonly WantedAddress[] {
  if (service.loadBalancerIngress.length === 0 && service.externalIPs.length === 0) return noAddresses;
  const wanted: WantedAddress[] = [];
  const add = (kind: WantedAddress['kind'], text: string, field: string): void => {
    const address = parseAddress(text.trim());
    if (address === undefined) {
      if (text.trim() !== '') report(field, () => notAnAddress(text));
      return;
    }
    const special = specialUse(address.ip);
    // A load balancer may well be on the node's own link; the API lets its status say so.
    if (special === undefined || (kind === 'LoadBalancerIP' && special === 'a link-local address'))
      wanted.push({ kind, ...address });
    else report(field, () => `${address.ip} is ${special}; it is left out`);
  };
  for (const [index, ingress] of service.loadBalancerIngress.entries()) {
    // Other modes, known or not, mean that the load balancer's own address must not be bypassed.
    if (ingress.ipMode !== '' && ingress.ipMode !== 'VIP') continue;
    add('LoadBalancerIP', ingress.ip, `status.loadBalancer.ingress[${index}].ip`);
  }
  if (options.externalIPs) {
    for (const [index, text] of service.externalIPs.entries()) {
      add('ExternalIP', text, `spec.externalIPs[${index}]`);
    }
  }
  return wanted;
}

/** The ranges of both families that can be used; undefined when the Service names none at all. */
function readSourceRanges(service: Service, report: Report): readonly ParsedCidr[] | undefined {
  if (service.loadBalancerSourceRanges.length === 0) return undefined;
  const given = service.loadBalancerSourceRanges.map((text) => text.trim());
  if (given.every((text) => text === '')) return undefined;
  const ranges: ParsedCidr[] = [];
  for (const [index, text] of given.entries()) {
    const range = parseCidr(text);
    if (range !== undefined) ranges.push(range);
    else if (text !== '') {
      report(
        `spec.loadBalancerSourceRanges[${index}]`,
        () => `${quoted(text)} is not a CIDR such as 192.0.2.0/24; it is left out`,
      );
    }
  }
  return ranges;
}

function readHealthCheckNodePort(service: Service, report: Report): number {
  if (service.type !== 'LoadBalancer') return 0;
  if (isPort(service.healthCheckNodePort)) return service.healthCheckNodePort;
  report(
    'spec.healthCheckNodePort',
    () =>
      `${service.healthCheckNodePort} is not a port number (1-65535); load balancers cannot check this Service`,
  );
  return 0;
}

function planFamily(wishes: Wishes, family: IPFamily): FamilyPlan | undefined {
  const clusterIP = findClusterIP(wishes, family);
  if (clusterIP === undefined) return undefined;
  const { internalLocal, externalLocal } = wishes;
  const external =
    wishes.externalAddresses.length === 0
      ? noAddresses
      : wishes.externalAddresses.filter((address) => address.family === family);
  const ipsOf = (kind: AddressKind): string[] =>
    external.length === 0 ? [] : external.filter((address) => address.kind === kind).map(({ ip }) => ip);
  const vips = ipsOf('LoadBalancerIP');
  const addressesOf = addressList(clusterIP, vips.sort(), ipsOf('ExternalIP').sort());
  const most = Math.max(1, Math.floor(maxServiceAddresses / addressesOf.length));
  if (wishes.ports.length > most) {
    wishes.report(
      'spec.ports',
      () =>
        `${wishes.ports.length} ports on ${addressesOf.length} addresses each are too many; ${most} are used`,
    );
  }
  const used = wishes.ports.length > most ? wishes.ports.slice(0, most) : wishes.ports;
  const sourceRanges =
    vips.length > 0
      ? limitedRanges(effectiveSourceRanges(wishes, family, vips), vips.length * used.length, wishes.report)
      : undefined;
  const ports = used.map((spec): PortPlan => {
    const addresses = addressesOf.map(({ kind, ip }): VirtualAddress => {
      const scope = kind === 'ClusterIP' ? 'internal' : 'external';
      return {
        kind,
        ip,
        port: spec.port,
        scope,
        policy: (scope === 'internal' ? internalLocal : externalLocal) ? 'Local' : 'Cluster',
        fallback: 'serve',
        sourceRanges: kind === 'LoadBalancerIP' ? sourceRanges : undefined,
      };
    });
    if (spec.nodePort !== 0) {
      addresses.push({
        kind: 'NodePort',
        ip: '',
        port: spec.nodePort,
        scope: 'external',
        policy: externalLocal ? 'Local' : 'Cluster',
        fallback: 'serve',
        sourceRanges: undefined,
      });
    }
    const externallyAccessible = external.length > 0 || spec.nodePort !== 0;
    return {
      portName: spec.name,
      protocol: spec.protocol,
      clusterIP,
      port: spec.port,
      addresses: compact(addresses),
      affinitySeconds: wishes.affinitySeconds,
      usesCluster: !internalLocal || externallyAccessible,
      usesLocal: internalLocal || (externalLocal && externallyAccessible),
    };
  });
  if (ports.length === 0) return undefined;
  return { ports, healthCheckNodePort: wishes.healthCheckNodePort };
}

/**
 * The addresses of every port but the node port, each once. Kinds come in the order that decides when one Service names an
 * address twice: a VIP that is also an external IP keeps its source ranges.
 * @param vips sorted, because controllers write the same addresses in changing order; so are `externalIPs`
 */
function addressList(
  clusterIP: string,
  vips: readonly string[],
  externalIPs: readonly string[],
): readonly { readonly kind: AddressKind; readonly ip: string }[] {
  const addresses: { kind: AddressKind; ip: string }[] = [{ kind: 'ClusterIP', ip: clusterIP }];
  if (vips.length === 0 && externalIPs.length === 0) return addresses;
  const seen = new Set([clusterIP]);
  for (const [kind, ips] of [
    ['LoadBalancerIP', vips],
    ['ExternalIP', externalIPs],
  ] as const) {
    for (const ip of ips) {
      if (addresses.length === maxServiceAddresses) return addresses;
      if (!seen.has(ip)) addresses.push({ kind, ip });
      seen.add(ip);
    }
  }
  return addresses;
}

function findClusterIP({ service, options, report }: Wishes, family: IPFamily): string | undefined {
  if (service.ipFamilies.length === 0) {
    const address = parseAddress(service.clusterIP);
    if (address === undefined && family === options.families[0]) {
      report('spec.clusterIP', () => notAnAddress(service.clusterIP));
    }
    return address?.family === family ? usable(address.ip, 'spec.clusterIP', report) : undefined;
  }
  const index = service.ipFamilies.indexOf(family);
  const text = index < 0 ? undefined : service.clusterIPs[index];
  if (text === undefined) return undefined;
  const address = parseAddress(text);
  if (address?.family === family) return usable(address.ip, `spec.clusterIPs[${index}]`, report);
  report(
    `spec.clusterIPs[${index}]`,
    () => `${quoted(text)} is not an ${family} address; the Service is not served over ${family}`,
  );
  return undefined;
}

/** A cluster IP, unless it stands for the node itself. */
function usable(ip: string, field: string, report: Report): string | undefined {
  const special = specialUse(ip);
  if (special === undefined || special === 'a link-local address') return ip;
  report(field, () => `${ip} is ${special}; the Service is not served over ${familyOf(ip)}`);
  return undefined;
}

/**
 * Who may use the VIPs of one family. Upstream lets everybody in when no range can be used for the family; a
 * Service that asks to be restricted stays restricted here.
 */
function effectiveSourceRanges(
  { sourceRanges, options, report }: Wishes,
  family: IPFamily,
  vips: readonly string[],
): readonly Cidr[] | undefined {
  if (sourceRanges === undefined) return undefined;
  const own = sourceRanges.filter((range) => range.family === family).map((range) => range.cidr);
  if (own.length === 0) {
    report(
      'spec.loadBalancerSourceRanges',
      () =>
        `no range is a valid ${family} CIDR, so nobody may use the ${family} load balancer address; add ${family === 'IPv4' ? '0.0.0.0/0' : '::/0'} to let everybody in`,
    );
    return [];
  }
  if (own.some((cidr) => cidr.prefixLength === 0)) return undefined;
  const nodeIP = options.nodeIPs[family];
  // A process of this node that talks to a VIP configured on the node has the VIP itself as its source.
  if (nodeIP !== undefined && own.some((cidr) => cidrContains(cidr, nodeIP))) own.push(...vips.map(hostCidr));
  own.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.prefixLength - b.prefixLength));
  return own.filter((cidr, index) => {
    const before = own[index - 1];
    return before === undefined || !sameCidr(before, cidr);
  });
}

/**
 * As many ranges as the Service's addresses leave room for. Without the others, fewer clients are let in, never more.
 * @param restricted pairs of an address and a port that the ranges are for
 */
function limitedRanges(
  ranges: readonly Cidr[] | undefined,
  restricted: number,
  report: Report,
): readonly Cidr[] | undefined {
  const most = Math.max(1, Math.floor(maxServiceSources / Math.max(1, restricted)));
  if (ranges === undefined || ranges.length <= most) return ranges;
  report(
    'spec.loadBalancerSourceRanges',
    () => `${ranges.length} ranges for ${restricted} addresses and ports are too many; ${most} are used`,
  );
  return ranges.slice(0, most);
}

function notAnAddress(text: string): string {
  return `${quoted(text)} is not an IP address; it is left out`;
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= maxPort;
}
