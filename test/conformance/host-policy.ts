/** Rules of the host that drop what nobody accepts, in the place where the mode under test can accept something. */
import type { Column } from './cases.js';
import type { Topology } from './topology.js';

export type ClosedHook = 'forward' | 'input';

/** In a base chain of its own table: modes of nftables can accept nothing there. */
const nftRules: Readonly<Record<ClosedHook, string>> = {
  forward: 'type filter hook forward priority 0; policy drop;',
  input: `type filter hook input priority 0; policy drop;
    iifname lo accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept`,
};

/** Rules that go behind what is there; then the chain drops by default. */
const iptablesRules: Readonly<Record<ClosedHook, Readonly<Record<Command, readonly (readonly string[])[]>>>> =
  {
    forward: { iptables: [], ip6tables: [] },
    input: {
      iptables: [['-i', 'lo', '-j', 'ACCEPT']],
      ip6tables: [
        ['-i', 'lo', '-j', 'ACCEPT'],
        ['-p', 'icmpv6', '-j', 'ACCEPT'],
      ],
    },
  };

type Command = 'iptables' | 'ip6tables';
const commands: readonly Command[] = ['iptables', 'ip6tables'];

/** @param closed false: as it was */
export async function closeHook(
  topology: Topology,
  hook: ClosedHook,
  column: Column,
  closed: boolean,
): Promise<void> {
  if (column !== 'ipt') {
    const rules = closed
      ? `table inet harness {\n chain ${hook} {\n ${nftRules[hook]}\n }\n}\n`
      : 'table inet harness\ndelete table inet harness\n';
    await topology.exec('alder', 'nft', ['-f', '-'], rules);
    return;
  }
  const chain = hook.toUpperCase();
  for (const command of commands) {
    const run = (...args: readonly string[]): Promise<string> =>
      topology.exec('alder', command, ['-w', '5', ...args]);
    for (const rule of iptablesRules[hook][command]) await run(closed ? '-A' : '-D', chain, ...rule);
    await run('-P', chain, closed ? 'DROP' : 'ACCEPT');
  }
}
