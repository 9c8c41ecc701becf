/** Takes packets through the tables of iptables, each of which changes in one step, by way of the hooks. */
import { walk, type Chains, type Packet } from '../../src/backends/iptables/testing/walk.js';
import type { Outcome } from '../soak/walk.js';

/** What iptables-save prints: chains by table. */
export type Tables = ReadonlyMap<string, Chains>;

export function parseTables(saved: string): Tables {
  const tables = new Map<string, Map<string, string[]>>();
  let table = new Map<string, string[]>();
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) tables.set(line.slice(1), (table = new Map<string, string[]>()));
    const [, declared] = /^:(\S+)/.exec(line) ?? [];
    if (declared !== undefined) table.set(declared, []);
    const [, chain = '', rule = ''] = /^-A (\S+) (.*)$/.exec(line) ?? [];
    if (chain !== '') table.get(chain)?.push(rule);
  }
  return tables;
}

export interface TablesWay {
  readonly outcome: Outcome;
  /** In which tables it was, in this order, and in which state of them. */
  readonly met: readonly string[];
}

/** All that may become of a packet that meets the tables before the change, up to some hook, and those after it from there on. */
export function* waysBetween(
  before: Tables,
  after: Tables,
  packet: Packet,
  isLocal: (address: string) => boolean,
): Generator<TablesWay, void, undefined> {
  for (let turn = 0; turn <= 3; turn++) {
    const met: string[] = [];
    const chainsOf = (stage: number, table: string, hook: string): Chains => {
      const isBefore = stage < turn;
      met[stage] = `${isBefore ? 'before' : 'after'} ${table} ${hook}`;
      return (isBefore ? before : after).get(table) ?? new Map<string, string[]>();
    };
    const fromNode = isLocal(packet.source);
    const first = fromNode ? 'OUTPUT' : 'PREROUTING';
    const sent: Packet = { ...packet, fromNode, toNode: isLocal(packet.destination) };
    for (const { verdict, marked } of walk(chainsOf(0, 'nat', first), first, sent)) {
      const [, ip, port] = /^DNAT --to-destination \[?([^\]]+?)\]?:(\d+)$/.exec(verdict) ?? [];
      const translated = ip !== undefined;
      const arrived: Packet = translated
        ? { ...sent, destination: ip, port: Number(port), toNode: isLocal(ip), translated, marked }
        : { ...sent, marked };
      const hooks = fromNode
        ? ['OUTPUT', ...(arrived.toNode === true ? ['INPUT'] : [])]
        : [arrived.toNode === true ? 'INPUT' : 'FORWARD'];
      const refused = hooks
        .flatMap((hook) => walk(chainsOf(1, 'filter', hook), hook, arrived))
        .find((way) => way.verdict === 'DROP' || way.verdict.startsWith('REJECT'));
      if (refused !== undefined) {
        yield {
          outcome: { kind: refused.verdict === 'DROP' ? 'dropped' : 'rejected' },
          met: met.slice(0, 2),
        };
        continue;
      }
      const last = 'POSTROUTING';
      const masqueraded =
        (fromNode || arrived.toNode !== true) &&
        walk(chainsOf(2, 'nat', last), last, arrived).some((way) => way.verdict.startsWith('MASQUERADE'));
      const outcome: Outcome = translated
        ? { kind: 'translated', to: `${ip} ${port ?? ''}`, masqueraded }
        : { kind: 'passed', masqueraded };
      yield { outcome, met: [...met] };
    }
  }
}
