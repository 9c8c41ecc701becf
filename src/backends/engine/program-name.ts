/** Names a program for an operator, by what the kernel tells of it: the name of its main thread and its process id. */
import { readFileSync } from 'node:fs';
import type { Generation } from '@kube-proxy-ts/netlink/nftables';

const maxCommand = 120;

/** 'firewalld (pid 812, /usr/bin/python3 /usr/sbin/firewalld)', as far as it can be known: most that do so end at once. */
export function programName({ processId, processName }: Omit<Generation, 'id'>, procfs = '/proc'): string {
  const command = commandOf(processId, processName, procfs);
  return `${processName} (pid ${processId}${command === undefined ? '' : `, ${command}`})`;
}

/**
 * The program file, and the script where that is an interpreter. Other arguments may be secret.
 * @returns undefined when it is gone, or the number means another process here: the kernel counts in the first pid namespace
 */
function commandOf(pid: number, name: string, procfs: string): string | undefined {
  try {
    if (readFileSync(`${procfs}/${pid}/comm`, 'utf8').trimEnd() !== name) return undefined;
    const [file = '', ...args] = readFileSync(`${procfs}/${pid}/cmdline`, 'utf8').split('\0');
    if (file === '') return undefined;
    const script = args.find((argument) => !argument.startsWith('-'));
    const text = script?.startsWith('/') === true ? `${file} ${script}` : file;
    return text.replace(/[^\x20-\x7e]/g, '?').slice(0, maxCommand);
  } catch {
    return undefined;
  }
}
