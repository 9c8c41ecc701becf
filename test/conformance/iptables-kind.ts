/** Which kind of iptables the proxy under test finds: Debian has both, and links to the one that is the system's choice. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { CommandError } from './commands.js';

export const iptablesKinds = ['nft', 'legacy'] as const;
export type IptablesKind = (typeof iptablesKinds)[number];

/** Puts a folder with links to the programs of the kind in front of PATH, for everything that is started from now on. */
export function chooseIptables(kind: IptablesKind, folder: string): void {
  const bin = path.join(folder, 'bin');
  fs.mkdirSync(bin, { recursive: true });
  for (const command of ['iptables', 'ip6tables']) {
    for (const suffix of ['', '-save', '-restore']) {
      const link = path.join(bin, command + suffix);
      fs.rmSync(link, { force: true });
      fs.symlinkSync(find(`${command}-${kind}${suffix}`), link);
    }
  }
  process.env['PATH'] = `${bin}:${process.env['PATH'] ?? ''}`;
}

function find(program: string): string {
  try {
    return execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
  } catch (error) {
    throw new CommandError(`${program} is not in PATH: install Debian's package iptables`, { cause: error });
  }
}
