/**
 * Which kind of iptables a node uses. The kubelet keeps chains of no purpose but to show that: KUBE-IPTABLES-HINT in table
 * mangle, older ones KUBE-KUBELET-CANARY (spec of upstream's mode iptables; the iptables-wrapper in upstream's image looks
 * for the same two). A container's own iptables is of the kind that its image was built with, which says nothing about
 * the node.
 */
import { readFileSync } from 'node:fs';
import type { IPFamily } from '../../../model/types.js';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';

/** They do not see each other's rules: `legacy` writes x_tables, `nf_tables` translates. */
export type ToolKind = 'legacy' | 'nf_tables';

const table = 'mangle';
const hints = ['KUBE-IPTABLES-HINT', 'KUBE-KUBELET-CANARY'] as const;
const families: readonly IPFamily[] = ['IPv4', 'IPv6'];

/**
 * Looks without making tables where there are none.
 * @param saveLegacy what `iptables-legacy-save -t mangle` prints, of the family
 * @returns undefined: nothing tells
 */
export async function kindInUse(
  saveLegacy: (family: IPFamily) => Promise<string>,
): Promise<ToolKind | undefined> {
  if (hintsInNftables()) return 'nf_tables';
  for (const family of families) {
    if (!hasLegacyTable(family)) continue;
    const chains = (await saveLegacy(family)).split('\n');
    if (hints.some((hint) => chains.some((line) => line.startsWith(`:${hint} `)))) return 'legacy';
  }
  return undefined;
}

function hintsInNftables(): boolean {
  let connection: NftablesConnection | undefined;
  try {
    const open = (connection = NftablesConnection.open());
    return (['ip', 'ip6'] as const).some((family) =>
      open.listChains(family, table).some(({ name }) => hints.some((hint) => hint === name)),
    );
  } catch {
    // A kernel without nf_tables has none of its chains.
    return false;
  } finally {
    connection?.close();
  }
}

/** A table exists from the first time that somebody looks at it: asking the program would make it. */
function hasLegacyTable(family: IPFamily): boolean {
  try {
    const names = readFileSync(`/proc/net/${family === 'IPv4' ? 'ip' : 'ip6'}_tables_names`, 'utf8');
    return names.split('\n').includes(table);
  } catch {
    // The file comes with the kernel's modules.
    return false;
  }
}
