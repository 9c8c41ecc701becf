/**
 * What is there whatever the Services: the chains that packets enter, the rules that lead to them from the kernel's
 * own chains, and the fixed rules in them.
 */
import type { Cidr, IPFamily, Protocol } from '../../../model/types.js';
import type { DataplaneOptions } from '../../backend.js';
import { chains, counters, protocolWord, type TableName } from './names.js';
import { comment, hex, host, port, words } from './rule-text.js';

/** A rule of ours at the head of a chain that is not ours. */
export interface Jump {
  readonly table: TableName;
  readonly chain: string;
  readonly rule: string;
}

/** Settings of this mode beside those of every dataplane. They hold for the life of the process. */
export interface IptablesOptions extends DataplaneOptions {
  /** Drop what connection tracking calls invalid: not wanted where TCP is to be taken liberally. */
  readonly dropInvalid: boolean;
}

/** What this kernel and tool can do; what they can't is done without, or in another way. */
export interface Abilities {
  /** Match bpf: one rule finds every packet that goes back to where it came from. */
  readonly bpf: boolean;
  /** Target REJECT; without it what nobody serves is dropped. */
  readonly reject: boolean;
  /** MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  /** Counters that exist and can be used in rules. */
  readonly counters: ReadonlySet<string>;
}

const stateNew = '-m conntrack --ctstate NEW';

function jump(table: TableName, from: string, to: string, description: string, match?: string): Jump {
  return { table, chain: from, rule: words(match, comment(description), `-j ${to}`) };
}

/** In the order in which they are put at the heads of their chains: the last one comes to stand first. */
export function jumps(options: IptablesOptions): readonly Jump[] {
  const portals = 'kubernetes service portals';
  const external = 'kubernetes externally-visible service portals';
  const firewall = 'kubernetes load balancer firewall';
  const list = [
    jump('filter', 'INPUT', chains.externalServices, external, stateNew),
    jump('filter', 'FORWARD', chains.externalServices, external, stateNew),
    jump('filter', 'INPUT', chains.nodePorts, 'kubernetes health check service ports'),
    jump('filter', 'FORWARD', chains.services, portals, stateNew),
    jump('filter', 'OUTPUT', chains.services, portals, stateNew),
    jump('filter', 'FORWARD', chains.forward, 'kubernetes forwarding rules'),
    ...['INPUT', 'OUTPUT', 'FORWARD'].map((chain) =>
      jump('filter', chain, chains.proxyFirewall, firewall, stateNew),
    ),
    jump('nat', 'OUTPUT', chains.services, portals),
    jump('nat', 'PREROUTING', chains.services, portals),
    jump('nat', 'POSTROUTING', chains.postrouting, 'kubernetes postrouting rules'),
  ];
  if (options.guardLoopback === true) {
    for (const chain of ['INPUT', 'OUTPUT'])
      list.push({ table: 'filter', chain, rule: `-j ${chains.firewall}` });
  }
  return list;
}

/** The canary of table mangle is the one that is looked at: the table is small. */
export const canaryTables: readonly TableName[] = ['mangle', 'nat', 'filter'];

/** Upstream serves node ports on loopback addresses in IPv4 only, and so does this mode. */
export function localhostRanges({ family, localhostNodePorts }: IptablesOptions): readonly Cidr[] {
  return family === 'IPv4' ? (localhostNodePorts?.ranges ?? []) : [];
}

/** In KUBE-FIREWALL, which the kubelet fills with the same rule: see DataplaneOptions.guardLoopback. */
export const loopbackGuard = words(
  '! -s 127.0.0.0/8 -d 127.0.0.0/8',
  comment('block incoming localnet connections'),
  '-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
);

function markMatch(mark: number, not = false): string {
  return words('-m mark', not ? '!' : undefined, `--mark ${hex(mark)}/${hex(mark)}`);
}

export function markMasqueradeRules({ masqueradeMark }: IptablesOptions): string[] {
  return [`-j MARK --set-xmark ${hex(masqueradeMark)}/${hex(masqueradeMark)}`];
}

/** @param hairpins the rules that find what goes back to its source, without match bpf */
export function postroutingRules(
  options: IptablesOptions,
  abilities: Abilities,
  hairpins: readonly string[],
): string[] {
  const { family, masqueradeMark } = options;
  const rules = abilities.bpf
    ? [
        words(
          comment('kubernetes hairpin traffic'),
          '-m conntrack --ctstate DNAT',
          sameAddressMatch(family),
          `-j ${chains.markMasquerade}`,
        ),
      ]
    : [...hairpins];
  rules.push(`${markMatch(masqueradeMark, true)} -j RETURN`);
  // Whoever comes by way of localhost is masqueraded.
  if (localhostRanges(options).length > 0 && abilities.counters.has(counters.localhostNodePorts)) {
    rules.push(`-m conntrack --ctorigdst 127.0.0.0/8 -m nfacct --nfacct-name ${counters.localhostNodePorts}`);
  }
  // Once is enough: the packet may pass here again inside a tunnel.
  rules.push(
    `-j MARK --set-xmark ${hex(masqueradeMark)}/0x0`,
    words(
      comment('kubernetes service traffic requiring SNAT'),
      '-j MASQUERADE',
      abilities.randomFully ? '--random-fully' : undefined,
    ),
  );
  return rules;
}

/**
 * Matches when source and destination are the same, in classic BPF over the IP header: the number of
 * instructions, then `code jump-if-true jump-if-false operand` of each (linux/filter.h).
 */
export function sameAddressMatch(family: IPFamily): string {
  const [source, words32] = family === 'IPv4' ? [12, 1] : [8, 4];
  const loadWord = (offset: number): string => `32 0 0 ${offset}`;
  const toIndex = '7 0 0 0';
  const instructions: string[] = [];
  for (let word = 0; word < words32; word++) {
    const offset = source + 4 * word;
    const left = 4 * (words32 - word - 1) + 1;
    instructions.push(loadWord(offset), toIndex, loadWord(offset + 4 * words32), `29 0 ${left} 0`);
  }
  instructions.push('6 0 0 65535', '6 0 0 0');
  return `-m bpf --bytecode "${[instructions.length, ...instructions].join(',')}"`;
}

export function forwardRules(
  { masqueradeMark, dropInvalid }: IptablesOptions,
  abilities: Abilities,
): string[] {
  const rules: string[] = [];
  if (dropInvalid) {
    rules.push(
      words(
        '-m conntrack --ctstate INVALID',
        abilities.counters.has(counters.invalidDropped)
          ? `-m nfacct --nfacct-name ${counters.invalidDropped}`
          : undefined,
        '-j DROP',
      ),
    );
  }
  rules.push(
    `${comment('kubernetes forwarding rules')} ${markMatch(masqueradeMark)} -j ACCEPT`,
    `${comment('kubernetes forwarding conntrack rule')} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
  );
  return rules;
}

/** Lowest and highest node port that is served. */
export interface PortRange {
  readonly protocol: Protocol;
  readonly low: number;
  readonly high: number;
}

/** The end of nat KUBE-SERVICES: what is for the node itself, and for a port within reach, may be for a node port. */
export function nodePortRules(
  options: IptablesOptions,
  addresses: readonly string[],
  ranges: readonly PortRange[],
): string[] {
  const { family } = options;
  const note = comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain');
  return ranges.flatMap(({ protocol, low, high }) => {
    const rule = (match: string, more?: string): string =>
      words(
        match,
        `-p ${protocolWord(protocol)}`,
        note,
        port(protocol, low === high ? low : `${low}:${high}`),
        more,
        `-j ${chains.nodePorts}`,
      );
    const loopback = localhostRanges(options).map(({ ip, prefixLength }) => `${ip}/${prefixLength}`);
    if (options.nodePortAddresses !== 'all') {
      return [...addresses.map((ip) => host(family, ip)), ...loopback].map((to) => rule(`-d ${to}`));
    }
    const all = family === 'IPv4' ? '127.0.0.0/8' : '::1/128';
    return [rule(loopback.includes(all) ? '' : `! -d ${all}`, '-m addrtype --dst-type LOCAL')];
  });
}

/** The load balancer's question whether this node is alive is let in. */
export function healthCheckRule(number: number): string {
  return words('-p tcp', comment('kubernetes health check node port'), port('TCP', number), '-j ACCEPT');
}
