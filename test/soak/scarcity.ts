/** What a node may run short of, or have too much of, for a moment: descriptors, addresses. */
import { setTimeout as sleep } from 'node:timers/promises';
import { run, runQuietly } from '../conformance/commands.js';

/** Also for what the standard streams take: no other descriptor can be opened then. */
const noDescriptors = 3;

/** The process can open nothing while `work` is done. What it has open stays open. */
export async function withoutDescriptors(pid: number, work: () => Promise<void>): Promise<void> {
  const before = (
    await run('prlimit', ['--pid', String(pid), '--nofile', '--output', 'SOFT', '--noheadings', '--raw'])
  ).trim();
  await run('prlimit', ['--pid', String(pid), `--nofile=${noDescriptors}:`]);
  try {
    await work();
  } finally {
    // It may have ended meanwhile.
    await runQuietly('prlimit', ['--pid', String(pid), `--nofile=${before}:`]);
  }
}

const link = 'soak0';
const ranges = { IPv4: 700, IPv6: 300 };

/**
 * A thousand addresses come one after the other, and go again: first some, the rest at once with their interface. A part of them is
 * in the ranges that nodePortChoices has.
 */
export async function throngOfAddresses(namespace: string, meanwhile: () => Promise<void>): Promise<void> {
  const addresses = [
    ...Array.from({ length: ranges.IPv4 }, (_, i) => `100.64.${128 + (i >> 8)}.${i & 255}/32`),
    ...Array.from({ length: ranges.IPv6 }, (_, i) => `2001:db8:77::1:${i.toString(16)}/128`),
  ];
  const batch = async (lines: readonly string[]): Promise<void> => {
    await run('ip', ['-n', namespace, '-batch', '-'], lines.map((line) => `${line}\n`).join(''));
  };
  await batch([
    `link add ${link} type veth peer name ${link}-peer`,
    `link set ${link} addrgenmode none`,
    ...addresses.map((address) => `addr add ${address} dev ${link}`),
  ]);
  try {
    await meanwhile();
    await batch(addresses.filter((_, i) => i % 2 === 0).map((address) => `addr del ${address} dev ${link}`));
    await sleep(20);
  } finally {
    await batch([`link delete ${link}`]);
  }
}
