/**
 * Reads and replaces tables of iptables (legacy) in the kernel, through socket options of any internet socket, as the
 * program iptables-legacy does (linux/netfilter_ipv4/ip_tables.h: struct ipt_getinfo, ipt_get_entries, ipt_replace,
 * xt_counters_info). A replacement is all or nothing.
 */
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { readHostU32, writeHostU32, writeHostU64 } from '../endian.js';
import type { Family } from '../nfnetlink.js';
import { addressOf, getsockopt, setsockopt, socket } from '../libc.js';
import { hooks, type KernelTable } from './table.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const LEVEL = { ip: 0, ip6: 41 } as const;
const GET_INFO = 64;
const GET_ENTRIES = 65;
const SET_REPLACE = 64;
const SET_ADD_COUNTERS = 65;

const NAME = 32;
const INFO = { validHooks: 32, hookEntry: 36, underflow: 56, entryCount: 76, size: 80, length: 84 } as const;
const ENTRIES = { size: 32, entries: 40 } as const;
const REPLACE = {
  validHooks: 32,
  entryCount: 36,
  size: 40,
  hookEntry: 44,
  underflow: 64,
  counterCount: 84,
  counters: 88,
  entries: 96,
} as const;
const ADD = { count: 32, counters: 40 } as const;
const COUNTER = 16;

/** Whether this machine has the 64-bit form of these structures. */
export function isSupportedMachine(): boolean {
  return !['arm', 'ia32', 'mips', 'mipsel', 'ppc', 's390'].includes(process.arch);
}

/** Tables that exist in this network namespace; asking loads nothing. */
export function existingTables(family: Family): string[] {
  const file = `/proc/net/${family}_tables_names`;
  return existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter((name) => name !== '')
    : [];
}

function open(family: Family): number {
  return socket(
    family === 'ip' ? AF_INET : AF_INET6,
    SOCK_DGRAM | SOCK_CLOEXEC,
    0,
    'open socket',
    () => undefined,
  );
}

function offsets(buffer: Buffer, at: number): number[] {
  return hooks.map((_, hook) => readHostU32(buffer, at + 4 * hook));
}

/**
 * What the kernel says of a table without its rules: where chains begin, how many entries there are, and their size. One call that
 * costs the same for a table of any size, and tells of most changes.
 * @throws NetlinkError, as readTable()
 */
export function readTableInfo(family: Family, name: string): Buffer {
  const operation = `look at table ${family} ${name} of iptables (legacy)`;
  const fd = open(family);
  try {
    const info = Buffer.alloc(INFO.length);
    info.write(name, 0, NAME - 1, 'latin1');
    getsockopt(fd, LEVEL[family], GET_INFO, info, operation);
    return info;
  } finally {
    closeSync(fd);
  }
}

/** @throws NetlinkError EPERM, or ENOENT when there is no such table */
export function readTable(family: Family, name: string): KernelTable {
  const operation = `read table ${family} ${name} of iptables (legacy)`;
  const fd = open(family);
  try {
    const info = Buffer.alloc(INFO.length);
    info.write(name, 0, NAME - 1, 'latin1');
    getsockopt(fd, LEVEL[family], GET_INFO, info, operation);
    const size = readHostU32(info, INFO.size);
    const answer = Buffer.alloc(ENTRIES.entries + size);
    answer.write(name, 0, NAME - 1, 'latin1');
    writeHostU32(answer, ENTRIES.size, size);
    getsockopt(fd, LEVEL[family], GET_ENTRIES, answer, operation);
    return {
      family,
      name,
      validHooks: readHostU32(info, INFO.validHooks),
      hookEntry: offsets(info, INFO.hookEntry),
      underflow: offsets(info, INFO.underflow),
      entryCount: readHostU32(info, INFO.entryCount),
      entries: answer.subarray(ENTRIES.entries),
    };
  } finally {
    closeSync(fd);
  }
}

/**
 * Puts a table in the place of another. Packets meet the old or the new one. Counters go on from where they were.
 * @param before what readTable() gave
 * @param indexes for each entry of `table` which one it was before
 * @throws NetlinkError EAGAIN when the table has been changed since it was read
 */
export function replaceTable(before: KernelTable, table: KernelTable, indexes: readonly number[]): void {
  const { family, name } = table;
  const operation = `replace table ${family} ${name} of iptables (legacy)`;
  const old = Buffer.alloc(before.entryCount * COUNTER);
  const request = Buffer.alloc(REPLACE.entries + table.entries.length);
  request.write(name, 0, NAME - 1, 'latin1');
  writeHostU32(request, REPLACE.validHooks, table.validHooks);
  writeHostU32(request, REPLACE.entryCount, table.entryCount);
  writeHostU32(request, REPLACE.size, table.entries.length);
  for (const hook of hooks.keys()) {
    writeHostU32(request, REPLACE.hookEntry + 4 * hook, table.hookEntry[hook] ?? 0);
    writeHostU32(request, REPLACE.underflow + 4 * hook, table.underflow[hook] ?? 0);
  }
  // The kernel writes the old table's counters there, and refuses unless it has that many.
  writeHostU32(request, REPLACE.counterCount, before.entryCount);
  writeHostU64(request, REPLACE.counters, addressOf(old));
  table.entries.copy(request, REPLACE.entries);

  const fd = open(family);
  try {
    setsockopt(fd, LEVEL[family], SET_REPLACE, request, operation);
    const counters = Buffer.alloc(ADD.counters + indexes.length * COUNTER);
    counters.write(name, 0, NAME - 1, 'latin1');
    writeHostU32(counters, ADD.count, indexes.length);
    for (const [now, then] of indexes.entries())
      old.copy(counters, ADD.counters + now * COUNTER, then * COUNTER, (then + 1) * COUNTER);
    setsockopt(fd, LEVEL[family], SET_ADD_COUNTERS, counters, `${operation}: counters`);
  } finally {
    closeSync(fd);
  }
}
