/** Runs something while this process has no right to a folder, which root otherwise always has. */
import { chmodSync, statSync } from 'node:fs';

const nobody = 65534;

/** Meanwhile neither `folder` nor what is in it can be reached. */
export async function withoutRights(folder: string, work: () => Promise<void>): Promise<void> {
  const { mode } = statSync(folder);
  const isRoot = process.geteuid?.() === 0;
  chmodSync(folder, 0);
  if (isRoot) process.seteuid?.(nobody);
  try {
    await work();
  } finally {
    if (isRoot) process.seteuid?.(0);
    chmodSync(folder, mode);
  }
}
