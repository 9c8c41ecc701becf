/** How many processors the machine has: the unit in which the size of the connection tracking table is given. */
import { availableParallelism } from 'node:os';
import { systemFiles, type SystemFiles } from './files.js';

const nodesFolder = '/sys/devices/system/node';
const cpusFolder = '/sys/devices/system/cpu';

/**
 * Processors of the machine that are online, whatever share of them this process may use: the table belongs to the
 * host (conntrack.md section 5.2).
 */
export function countCPUs(
  files: SystemFiles = systemFiles(),
  usable: () => number = availableParallelism,
): number {
  let count = 0;
  try {
    count = countOnNodes(files) ?? namesLike(files, cpusFolder, /^cpu\d+$/).length;
  } catch {
    // Without /sys the scheduler still knows what we may run on.
  }
  return count >= 1 ? count : usable();
}

/** undefined: the machine does not tell its memory nodes. */
function countOnNodes(files: SystemFiles): number | undefined {
  const nodes = files.exists(nodesFolder) ? namesLike(files, nodesFolder, /^node\d+$/) : [];
  if (nodes.length === 0) return undefined;
  const online = onlineCPUs(files);
  let count = 0;
  for (const node of nodes) {
    for (const cpu of namesLike(files, `${nodesFolder}/${node}`, /^cpu\d+$/)) {
      const topology = `${nodesFolder}/${node}/${cpu}/topology`;
      const described =
        files.exists(`${topology}/core_id`) && files.exists(`${topology}/physical_package_id`);
      if (described && online(Number(cpu.slice('cpu'.length)))) count++;
    }
  }
  return count;
}

function namesLike(files: SystemFiles, folder: string, pattern: RegExp): string[] {
  return files.list(folder).filter((name) => pattern.test(name));
}

/** The list has the form '0-3,8'; without it all are online. */
function onlineCPUs(files: SystemFiles): (cpu: number) => boolean {
  let text: string;
  try {
    text = files.read(`${cpusFolder}/online`);
  } catch {
    return () => true;
  }
  const ranges = text.split(',').map((range) => {
    const [first = NaN, last = first] = range.split('-').map(Number);
    return { first, last };
  });
  return (cpu) => ranges.some(({ first, last }) => cpu >= first && cpu <= last);
}
