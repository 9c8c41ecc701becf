/**
 * `--cleanup`: removes what is kube-proxy's from the kernel, of all modes and of upstream's too, and says what it removed.
 * Connections that are established stay translated; settings of the machine stay as they are.
 */
import type { Outcome } from '../backends/removal-report.js';
import { openNftables } from '../backends/nft/open.js';
import { removeLeftovers } from '../leftovers/index.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

/** One line for each thing that was looked for. */
function line(outcome: Outcome): string {
  switch (outcome.kind) {
    case 'removed':
      return `removed ${outcome.what}`;
    case 'absent':
      return `nothing to remove: no ${outcome.what}`;
    case 'draining':
      return `kube-proxy: left behind ${outcome.what}, until they are over`;
    case 'kept':
      return `kube-proxy: left behind ${outcome.what}: ${outcome.why}`;
    case 'denied':
      return `kube-proxy: could not look for ${outcome.what}: ${outcome.why}: run as root, or with the capability ${outcome.capability}`;
    case 'failed':
      return `kube-proxy: could not remove ${outcome.what}: ${outcome.why}`;
  }
}

/**
 * @returns the exit code
 * @throws FatalError when the process may not program the kernel
 */
export async function cleanup(): Promise<number> {
  requirePermission();
  const report = await removeLeftovers(undefined);
  for (const outcome of report.outcomes) {
    const out = outcome.kind === 'removed' || outcome.kind === 'absent' ? process.stdout : process.stderr;
    out.write(`${line(outcome)}\n`);
  }
  return report.complete ? exitCodes.ok : exitCodes.leftBehind;
}

/** One line instead of one for each thing that may not be looked at. */
function requirePermission(): void {
  try {
    openNftables().close();
  } catch (error) {
    // A kernel without nf_tables may have everything else.
    if (error instanceof FatalError && error.exitCode === exitCodes.kernelUnsupported) return;
    throw error;
  }
}
