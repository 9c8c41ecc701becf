/** Opens nf_tables, with errors that say what to do about them. */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { exitCodes, FatalError } from '../../exit/exit-codes.js';

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

/** @returns a FatalError with the cure, or the error itself when it is about something else */
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
