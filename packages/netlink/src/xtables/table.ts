/**
 * A table of iptables as the kernel holds it for iptables of the legacy kind: one block of entries, one after the other
 * (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h). Numbers are in the
 * byte order of the machine; the form is that of 64-bit machines.
 *
 *     entry       what the packet has to look like (IPv4 84 bytes, IPv6 136) | nfcache u32
 *                 | offset of the target u16 | offset of the next entry u16 | comefrom u32 | packets u64 | bytes u64
 *                 | matches … | target
 *     target      size u16 | name, 29 bytes | revision u8 | contents
 *                 name "": a verdict i32 — negative: ACCEPT, DROP, RETURN; else a jump: the offset of an entry
 *                 name "ERROR": the beginning of a chain, whose name follows, or the end of the table
 *
 * Built-in chains come first; where each begins and where its policy stands is said outside of the block. A chain ends
 * with an entry of its own that returns.
 */
import { readHostI32, readHostU16, writeHostU32 } from '../endian.js';
import type { Family } from '../nfnetlink.js';

/** enum nf_inet_hooks */
export const hooks = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'] as const;

/** A table as the kernel hands it out, and takes it back. */
export interface KernelTable {
  readonly family: Family;
  readonly name: string;
  /** Bit n: there is a chain for hook n. */
  readonly validHooks: number;
  /** Offset of the first entry of the chain of each hook. */
  readonly hookEntry: readonly number[];
  /** Offset of the policy of the chain of each hook. */
  readonly underflow: readonly number[];
  readonly entryCount: number;
  readonly entries: Buffer;
}

/** The form does not make sense: the kernel speaks another dialect than we do. */
export class TableFormatError extends Error {
  readonly code = 'ERR_XTABLES_FORMAT';

  constructor(table: Pick<KernelTable, 'family' | 'name'>, offset: number, what: string) {
    super(`cannot read table ${table.family} ${table.name} of iptables (legacy): ${what} at byte ${offset}`);
    this.name = 'TableFormatError';
  }
}

/** A rule, a chain's head or its end. */
export interface TableEntry {
  /** Counted from 0; counters are numbered so. */
  readonly index: number;
  readonly offset: number;
  readonly size: number;
  /** Name of the chain that begins here. */
  readonly heads: string | undefined;
  /** Offset of the entry that it leads to. */
  readonly jump: number | undefined;
}

/** A chain with its rules. */
export interface TableChain {
  readonly name: string;
  readonly builtIn: boolean;
  /** Its rules; a chain's head and the policy or return at its end are not among them. */
  readonly rules: readonly TableEntry[];
  /** All of its entries, head and end included. */
  readonly entries: readonly TableEntry[];
}

/** struct ipt_ip, struct ip6t_ip6 */
const matchSize = { ip: 84, ip6: 136 } as const;
/** nfcache, offsets, comefrom; counters stand on a multiple of 8. */
function entryHeader(family: Family): number {
  return ((matchSize[family] + 12 + 7) & ~7) + 16;
}
const targetHeader = 32;
const targetName = { offset: 2, length: 29 } as const;
const errorTarget = 'ERROR';
const errorInitial = errorTarget.charCodeAt(0);
const chainNameLength = 30;

function text(buffer: Buffer, offset: number, length: number): string {
  const bytes = buffer.subarray(offset, offset + length);
  const zero = bytes.indexOf(0);
  return bytes.toString('latin1', 0, zero < 0 ? length : zero);
}

/** @throws TableFormatError */
export function readEntries(table: KernelTable): TableEntry[] {
  const { entries: block, family } = table;
  const header = entryHeader(family);
  const list: TableEntry[] = [];
  for (let offset = 0; offset < block.length;) {
    if (block.length - offset < header + targetHeader)
      throw new TableFormatError(table, offset, 'entry is cut off');
    const target = offset + readHostU16(block, offset + matchSize[family] + 4);
    const size = readHostU16(block, offset + matchSize[family] + 6);
    if (target < offset + header || target + targetHeader > offset + size || offset + size > block.length)
      throw new TableFormatError(table, offset, `entry says ${size} bytes`);
    const name = text(block, target + targetName.offset, targetName.length);
    const roomFor = (bytes: number): boolean => target + targetHeader + bytes <= offset + size;
    const verdict = name === '' && roomFor(4) ? readHostI32(block, target + targetHeader) : -1;
    const heads =
      name === errorTarget && roomFor(chainNameLength)
        ? text(block, target + targetHeader, chainNameLength)
        : undefined;
    list.push({ index: list.length, offset, size, heads, jump: verdict >= 0 ? verdict : undefined });
    offset += size;
  }
  if (list.length !== table.entryCount)
    throw new TableFormatError(table, block.length, `${list.length} entries, ${table.entryCount} announced`);
  return list;
}

/** @throws TableFormatError */
export function readChains(table: KernelTable, entries = readEntries(table)): TableChain[] {
  const chains: TableChain[] = [];
  const at = new Map(entries.map(({ offset, index }) => [offset, index]));
  const indexOf = (offset: number | undefined): number => {
    const index = at.get(offset ?? -1);
    if (index === undefined)
      throw new TableFormatError(table, offset ?? -1, 'a chain begins or ends inside an entry');
    return index;
  };
  for (const [hook, name] of hooks.entries()) {
    if ((table.validHooks & (1 << hook)) === 0) continue;
    const first = indexOf(table.hookEntry[hook]);
    const policy = indexOf(table.underflow[hook]);
    chains.push({
      name,
      builtIn: true,
      rules: entries.slice(first, policy),
      entries: entries.slice(first, policy + 1),
    });
  }
  const heads = entries.filter(({ heads }) => heads !== undefined);
  for (const [i, head] of heads.entries()) {
    const next = heads[i + 1];
    // The last one is the end of the table.
    if (next === undefined || head.heads === undefined) break;
    const all = entries.slice(head.index, next.index);
    if (all.length < 2) throw new TableFormatError(table, head.offset, 'a chain has no end');
    chains.push({ name: head.heads, builtIn: false, rules: all.slice(1, -1), entries: all });
  }
  return chains;
}

/** A chain without the contents of its rules. */
export interface ChainOutline {
  /** Without the policy or return at its end. */
  readonly rules: number;
  /** Built-in chains only: names of the chains to which its rules lead. */
  readonly leadsTo: readonly string[];
}

/**
 * The same as readChains(), but fit for a table with a million rules: nothing is made for a rule.
 * @throws TableFormatError
 */
export function readOutline(table: KernelTable): Map<string, ChainOutline> {
  const { entries: block, family } = table;
  const least = entryHeader(family) + targetHeader;
  const builtIn = hooks.flatMap((name, hook) =>
    (table.validHooks & (1 << hook)) === 0
      ? []
      : [
          {
            name,
            from: table.hookEntry[hook] ?? 0,
            to: table.underflow[hook] ?? 0,
            rules: 0,
            jumps: [] as number[],
          },
        ],
  );
  const outlines = new Map<string, ChainOutline>();
  const starts = new Map<number, string>();
  let head = '';
  let sinceHead = 0;
  const endChain = (): void => {
    if (head !== '') outlines.set(head, { rules: Math.max(0, sinceHead - 1), leadsTo: [] });
  };
  for (let offset = 0; offset < block.length;) {
    if (block.length - offset < least) throw new TableFormatError(table, offset, 'entry is cut off');
    const target = offset + readHostU16(block, offset + matchSize[family] + 4);
    const size = readHostU16(block, offset + matchSize[family] + 6);
    if (size < least || target + targetHeader > offset + size || offset + size > block.length)
      throw new TableFormatError(table, offset, `entry says ${size} bytes`);
    const isHead =
      block[target + targetName.offset] === errorInitial &&
      text(block, target + targetName.offset, targetName.length) === errorTarget;
    if (isHead) {
      endChain();
      head = text(
        block,
        target + targetHeader,
        Math.min(chainNameLength, offset + size - target - targetHeader),
      );
      sinceHead = 0;
      starts.set(offset + size, head);
    } else {
      sinceHead++;
    }
    for (const chain of builtIn) {
      if (offset < chain.from || offset >= chain.to) continue;
      chain.rules++;
      const isVerdict = block[target + targetName.offset] === 0 && target + targetHeader + 4 <= offset + size;
      const verdict = isVerdict ? readHostI32(block, target + targetHeader) : -1;
      if (verdict >= 0) chain.jumps.push(verdict);
    }
    offset += size;
  }
  // The last head is the end of the table.
  for (const { name, rules, jumps } of builtIn)
    outlines.set(name, { rules, leadsTo: jumps.flatMap((offset) => starts.get(offset) ?? []) });
  return outlines;
}

/** A table without some of its entries. */
export interface ReducedTable {
  readonly table: KernelTable;
  /** For each entry that stayed its index before. */
  readonly indexes: readonly number[];
}

/**
 * The same table without some entries. Nothing that stays may jump into a chain that goes.
 * @param drop offsets
 */
export function withoutEntries(
  table: KernelTable,
  drop: ReadonlySet<number>,
  entries = readEntries(table),
): ReducedTable {
  // An entry that goes is where its successor will be: a rule without a target 'jumps' to the entry behind it.
  const moved = new Map<number, number>();
  const staying: TableEntry[] = [];
  let length = 0;
  for (const entry of entries) {
    moved.set(entry.offset, length);
    if (drop.has(entry.offset)) continue;
    staying.push(entry);
    length += entry.size;
  }
  const newOffset = (offset: number): number => {
    const found = moved.get(offset);
    if (found === undefined)
      throw new TableFormatError(table, offset, 'a rule leads into the middle of an entry');
    return found;
  };
  const block = Buffer.alloc(length);
  for (const { offset, size, jump } of staying) {
    const to = newOffset(offset);
    table.entries.copy(block, to, offset, offset + size);
    if (jump === undefined) continue;
    const target = to + readHostU16(block, to + matchSize[table.family] + 4);
    writeHostU32(block, target + targetHeader, newOffset(jump));
  }
  const hookOffsets = (offsets: readonly number[]): number[] =>
    offsets.map((offset, hook) => ((table.validHooks & (1 << hook)) === 0 ? 0 : newOffset(offset)));
  return {
    table: {
      ...table,
      hookEntry: hookOffsets(table.hookEntry),
      underflow: hookOffsets(table.underflow),
      entryCount: staying.length,
      entries: block,
    },
    indexes: staying.map(({ index }) => index),
  };
}
