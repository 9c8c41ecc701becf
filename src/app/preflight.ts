/** What has to be true before anything is programmed, each failure with its cure. */
import { existsSync, readFileSync } from 'node:fs';
import type { DataplaneOptions } from '../backends/backend.js';
import { probeNftables } from '../backends/nftables/kernel/probe.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { IPFamily } from '../model/types.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

/** Families the kernel serves. IPv6 is left out where it is not there or switched off. */
export function usableFamilies(): IPFamily[] {
  const switchedOff = (): boolean => {
    try {
      return readFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', 'utf8').trim() === '1';
    } catch {
      return false;
    }
  };
  return existsSync('/proc/net/if_inet6') && !switchedOff() ? ['IPv4', 'IPv6'] : ['IPv4'];
}

/**
 * A connection to nf_tables that is known to work.
 * @throws FatalError when the process may not use it or the kernel has none
 */
export function openNftables(): NftablesConnection {
  let connection: NftablesConnection | undefined;
  try {
    connection = NftablesConnection.open();
    connection.listTables();
    return connection;
  } catch (error) {
    connection?.close();
    throw explainNetlink(error);
  }
}

export function explainNetlink(error: unknown): unknown {
  if (!(error instanceof NetlinkError)) return error;
  if (error.code === 'EPERM' || error.code === 'EACCES') {
    return new FatalError(
      exitCodes.notPermitted,
      'not permitted to program the kernel: run as root, or give the container the capability NET_ADMIN',
      { cause: error },
    );
  }
  if (
    ['EPROTONOSUPPORT', 'EAFNOSUPPORT', 'EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'ENOPROTOOPT'].includes(error.code)
  ) {
    return new FatalError(
      exitCodes.kernelUnsupported,
      `the kernel has no nf_tables (${error.code}): load it with 'modprobe nf_tables', or use a kernel of 5.13 or newer with CONFIG_NF_TABLES`,
      { cause: error },
    );
  }
  return error;
}

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

/** The same for commands that only look. @param what is looked at */
export function explainReading(error: unknown, what: string): unknown {
  const explained = explainNetlink(error);
  if (!(explained instanceof FatalError && explained.exitCode === exitCodes.notPermitted)) return error;
  return new FatalError(
    exitCodes.notPermitted,
    `not permitted to look at ${what}: run as root, or give the container the capability NET_ADMIN`,
    { cause: error },
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
