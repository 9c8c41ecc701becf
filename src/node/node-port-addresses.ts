/** Where node ports answer, from the configuration, the Node object and the addresses that the node really has. */
import type { Config } from '../config/config.js';
import type { Logger } from '../log/logger.js';
import { allFamilies, hostCidr, isLoopback } from '../model/addresses/addresses.js';
import type { NodeIPs } from '../model/addresses/node.js';
import {
  loopbackCidr,
  resolveNodePortAddresses,
  selectNodePortIPs,
  type NodePortAddresses,
} from '../model/addresses/nodeport-addresses.js';
import type { Cidr, IPFamily, LocalhostNodePorts } from '../model/types.js';

export interface NodePortAddressesOptions {
  readonly config: Pick<Config, 'nodePortAddresses' | 'localhostNodePorts' | 'localhostNodePortsByGate'>;
  readonly nodeIPs: NodeIPs;
  /** Addresses of all interfaces, now. */
  readonly localAddresses: () => readonly string[];
  /** Lets IPv4 packets to and from loopback addresses pass other interfaces. @returns why it can't */
  readonly allowRouteLocalnet: () => string | undefined;
  readonly log: Logger;
}

/** Upstream's words, which people search for. */
export const unsetNodePortAddresses =
  'nodePortAddresses is unset; NodePort connections will be accepted on all local IPs. Consider using `--nodeport-addresses primary`';

export class NodePortAddressSelection {
  private readonly selection: Readonly<Record<IPFamily, NodePortAddresses>>;

  constructor(private readonly options: NodePortAddressesOptions) {
    this.selection = resolveNodePortAddresses(options.config.nodePortAddresses, options.nodeIPs);
  }

  /** What the operator should know about a family. */
  warning(family: IPFamily): string | undefined {
    return this.selection[family].warning;
  }

  /** 'all', or the addresses of now; loopback addresses apart, see localhost(). */
  current(family: IPFamily): 'all' | readonly string[] {
    const selection = this.selection[family];
    return selection.matchAll ? 'all' : selectNodePortIPs(selection, this.options.localAddresses());
  }

  /** 'all', or the addresses of now, loopback addresses among them: for what listens itself (health check node ports). */
  listening(family: IPFamily): 'all' | readonly string[] {
    const selection = this.selection[family];
    return selection.matchAll ? 'all' : selectNodePortIPs(selection, this.options.localAddresses(), true);
  }

  /** All addresses of this node on which node ports answer now. */
  answering(family: IPFamily): readonly string[] {
    const { localAddresses } = this.options;
    const current = this.current(family);
    const all = current === 'all' ? localAddresses().filter((ip) => !isLoopback(ip)) : current;
    if (!this.wantsLocalhost(family) || this.loopbackRanges(family).length === 0) return all;
    return [...all, ...localAddresses().filter(isLoopback)];
  }

  /** Node ports on loopback addresses; undefined: not wanted, or not to be had, which is logged. */
  localhost(family: IPFamily): LocalhostNodePorts | undefined {
    const { log, nodeIPs } = this.options;
    const ranges = this.loopbackRanges(family);
    if (!this.wantsLocalhost(family) || ranges.length === 0) return undefined;
    if (family === 'IPv6') return isLoopback(nodeIPs.IPv6) ? undefined : { ranges, standIn: nodeIPs.IPv6 };
    const problem = this.options.allowRouteLocalnet();
    if (problem === undefined) return { ranges };
    log.warn(`Node ports do not answer on 127.0.0.1: ${problem}`);
    return undefined;
  }

  /** As configured; in mode nftables the gate of KEP-6032 says it where the setting does not. */
  private wantsLocalhost(family: IPFamily): boolean {
    const { localhostNodePorts, localhostNodePortsByGate } = this.options.config;
    return localhostNodePorts ?? (localhostNodePortsByGate && this.selection[family].namesLoopback);
  }

  private loopbackRanges(family: IPFamily): readonly Cidr[] {
    const selection = this.selection[family];
    if (selection.matchAll) return [loopbackCidr[family]];
    return selectNodePortIPs(selection, this.options.localAddresses(), true).filter(isLoopback).map(hostCidr);
  }
}

/** Families whose node IP is not the one it was. */
export function changedNodeIPs(before: NodeIPs, now: NodeIPs): readonly IPFamily[] {
  return allFamilies.filter((family) => before[family] !== now[family]);
}
