/**
 * Addresses that the rules in the kernel still lead somewhere, and that are no service port's now: their rules are about to
 * go, their flows are not. Only of UDP and SCTP, whose flows know no end. Upstream's rules are read as well as ours.
 *
 * A process that is killed after it has written rules and before it has ended the flows leaves a note: a chain to which
 * nothing leads holds the rules that have just gone, for some seconds.
 */
import { performance } from 'node:perf_hooks';
import type { IPFamily, Protocol, ReleasedAddress, ServicePort } from '../../model/types.js';
import { Turn } from '../../callbacks/turn.js';
import { chains } from './rules/names.js';
import { toAddress, words } from './rules/rule-text.js';
import type { Saved } from './tool/saved.js';

const rememberMs = 5_000;
/** Most rules of the note. */
const maxRules = 1_000;

/** What has gone lately. */
export class RecentlyReleased {
  private notes: { readonly rules: readonly string[]; readonly until: number }[] = [];

  constructor(private readonly family: IPFamily) {}

  /** @param next undefined: the service port is gone */
  change(before: ServicePort, next: ServicePort | undefined): void {
    if (before.servingEndpoints.length === 0 || before.addresses === next?.addresses) return;
    const kept = new Set(next?.addresses.map(({ ip, port }) => `${ip} ${port}`));
    const { protocol, servingEndpoints: endpoints } = before;
    for (const { ip, port } of before.addresses)
      if (!kept.has(`${ip} ${port}`)) this.add({ protocol, ip, port, endpoints });
  }

  add(address: ReleasedAddress): void {
    const to = toAddress(this.family, address, address.protocol, { comment: 'no longer a service' });
    const rules = address.endpoints
      .slice(0, maxRules)
      .map((endpoint) => words(to, `-j DNAT --to-destination ${endpoint}`));
    this.notes.push({ rules, until: performance.now() + rememberMs });
  }

  /** Some of it need not be remembered any more. */
  get isOver(): boolean {
    return (this.notes[0]?.until ?? Infinity) < performance.now();
  }

  /** The note, the newest first. */
  rules(): readonly string[] {
    const now = performance.now();
    this.notes = this.notes.filter(({ until }) => until >= now);
    const rules: string[] = [];
    for (let at = this.notes.length - 1; at >= 0 && rules.length < maxRules; at--)
      rules.push(...(this.notes[at]?.rules ?? []).slice(0, maxRules - rules.length));
    return rules;
  }
}

const protocols: Readonly<Partial<Record<string, Protocol>>> = { udp: 'UDP', sctp: 'SCTP' };
const own = 'KUBE-';

interface Lead {
  readonly protocol: Protocol;
  /** '' for a node port. */
  readonly ip: string;
  readonly port: number;
}

export async function releasedAddresses(
  saved: Saved,
  wanted: Iterable<ServicePort>,
  turn = new Turn(),
): Promise<ReleasedAddress[]> {
  const nat = saved.table('nat');
  const owned = new Set<string>();
  for (const { protocol, addresses } of wanted) {
    if (protocol === 'TCP') continue;
    for (const { ip, port } of addresses) owned.add(idOf({ protocol, ip, port }));
  }
  const found = new Map<string, { readonly lead: Lead; readonly endpoints: Set<string> }>();
  for (const [chain, rules] of nat) {
    if (turn.isOver) await turn.next();
    if (!chain.startsWith(own)) continue;
    for (const rule of rules) {
      const lead = leadOf(rule);
      if (lead === undefined || owned.has(idOf(lead))) continue;
      const entry = found.get(idOf(lead)) ?? { lead, endpoints: new Set<string>() };
      for (const endpoint of endpointsBehind(rule, nat, new Set([chain]))) entry.endpoints.add(endpoint);
      if (entry.endpoints.size > 0) found.set(idOf(lead), entry);
    }
  }
  return Array.from(found.values(), ({ lead, endpoints }) => ({ ...lead, endpoints: [...endpoints] }));
}

function idOf({ protocol, ip, port }: Lead): string {
  return `${protocol} ${ip} ${port}`;
}

/** The address whose packets the rule takes; undefined when they are of several, or of TCP. */
function leadOf(rule: string): Lead | undefined {
  if (!rule.includes('-p udp ') && !rule.includes('-p sctp ')) return undefined;
  const [, ip = '', length = '', word = '', port = ''] =
    /^(?:! -s \S+ |-s \S+ )?(?:-d ([^\s/]+)\/(\d+) )?(?:(?:! )?-i \S+ )?-p (udp|sctp) .*--dport (\d+)(?: |$)/.exec(
      rule,
    ) ?? [];
  const protocol = protocols[word];
  if (protocol === undefined || (ip !== '' && length !== (ip.includes(':') ? '128' : '32'))) return undefined;
  return { protocol, ip, port: Number(port) };
}

/** 'ip:port' of all that a rule translates to, itself or in the chains to which it leads. */
function* endpointsBehind(
  rule: string,
  nat: ReadonlyMap<string, readonly string[]>,
  seen: Set<string>,
): Generator<string, void, undefined> {
  const [, verb, target = ''] = /(?:^| )-(j DNAT --to-destination|j|g) (\S+)/.exec(rule) ?? [];
  if (verb?.startsWith('j DNAT') === true) {
    yield target;
    return;
  }
  // Any node port leads there.
  if (target === chains.nodePorts || seen.has(target)) return;
  seen.add(target);
  for (const next of nat.get(target) ?? []) yield* endpointsBehind(next, nat, seen);
}
