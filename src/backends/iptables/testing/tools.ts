/** Both kinds of iptables for tests: folders to put into PATH, and a lock of the test's own. */
import { accessSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ToolKind } from '../tool/kind.js';

const programs: Readonly<Record<ToolKind, string>> = {
  legacy: '/usr/sbin/xtables-legacy-multi',
  nf_tables: '/usr/sbin/xtables-nft-multi',
};

export const kinds: readonly ToolKind[] = ['nf_tables', 'legacy'];

/** @returns why the kind can't be used here, for a test's `skip`; false when it can */
export function missingTool(kind: ToolKind): string | false {
  try {
    accessSync(programs[kind]);
    return false;
  } catch {
    return `${programs[kind]} is not there: install the package iptables`;
  }
}

export interface ToolFolder {
  /** Only the programs of one kind are in it. */
  readonly path: string;
  /** For XTABLES_LOCKFILE, so that tests do not wait for each other. */
  readonly lock: string;
  remove(): void;
}

/**
 * A folder in which iptables, iptables-save and iptables-restore and their IPv6 twins are of one kind.
 * @param beside kinds that are there, too, by their full names (iptables-legacy, iptables-nft)
 */
export function toolFolder(kind: ToolKind, beside: readonly ToolKind[] = []): ToolFolder {
  const folder = mkdtempSync(path.join(tmpdir(), 'kube-proxy-iptables-'));
  for (const command of ['iptables', 'ip6tables']) {
    for (const suffix of ['', '-save', '-restore']) {
      symlinkSync(programs[kind], path.join(folder, `${command}${suffix}`));
      for (const other of beside) {
        const name = `${command}-${other === 'legacy' ? 'legacy' : 'nft'}${suffix}`;
        symlinkSync(programs[other], path.join(folder, name));
      }
    }
  }
  return {
    path: folder,
    lock: path.join(folder, 'lock'),
    remove: () => {
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
