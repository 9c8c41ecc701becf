/** Whether this machine can run mode nftables, each failure with its cure. */
import { readFileSync } from 'node:fs';
import type { NetlinkError } from '@kube-proxy-ts/netlink';
import { exitCodes, FatalError } from '../../../exit/exit-codes.js';
import type { DataplaneOptions } from '../../backend.js';
import { openNftables } from '../../nft/open.js';
import { probeNftables } from './probe.js';

/** @throws FatalError for a kernel older than nftables mode needs */
export function checkKernelVersion(
  release = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
): void {
  if ((process.env['KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK'] ?? '') !== '') return;
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  if (major > 5 || (major === 5 && minor >= 13)) return;
  throw new FatalError(
    exitCodes.kernelUnsupported,
    `nftables mode needs kernel 5.13 or newer, this is ${release}: upgrade the node's kernel`,
  );
}

/** Nothing that depends on the configuration: a mistake there is not the kernel's. */
const probeOptions: DataplaneOptions = {
  family: 'IPv4',
  masqueradeMark: 0x4000,
  masqueradeAll: false,
  detector: undefined,
  nodePortAddresses: 'all',
};

function lacking(refusal: NetlinkError): FatalError {
  return new FatalError(
    exitCodes.kernelUnsupported,
    `the kernel has nf_tables but not all of it: ${refusal.message}: load its modules (modprobe nft_ct nft_nat nft_masq nft_numgen nft_fib_ipv4 nft_reject_ipv4), or install them`,
    { cause: refusal },
  );
}

/** Why nf_tables can't be used here, all that our rules need of it; undefined: it can. Changes nothing. */
export function nftablesProblem(): Error | undefined {
  try {
    checkKernelVersion();
    const connection = openNftables();
    try {
      const refusal = probeNftables(connection, probeOptions);
      return refusal === undefined ? undefined : lacking(refusal);
    } finally {
      connection.close();
    }
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
