/** Whether this machine can run mode ipvs, each failure with its cure. */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { IpvsConnection, type VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import type { Config, IpvsConfig } from '../../config/config.js';
import { exitCodes, FatalError } from '../../exit/exit-codes.js';
import { explainNetlink, openNftables } from '../nft/open.js';
import { defaultScheduler, missingScheduler, schedulers } from './servers/schedulers.js';

/** The scheduler as configured, or upstream's default. */
export function schedulerOf({ scheduler }: Pick<IpvsConfig, 'scheduler'>): string {
  return scheduler === '' ? defaultScheduler : scheduler;
}

/** Why mode ipvs can't run here; undefined: it can. Loads what modules it needs. */
export function ipvsProblem(config: Pick<Config, 'ipvs'>): Error | undefined {
  let ipvs: IpvsConnection | undefined;
  try {
    // For what IPVS can't do: masquerading, source ranges.
    openNftables().close();
    ipvs = openIpvs();
    tryScheduler(ipvs, schedulerOf(config.ipvs));
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    ipvs?.close();
  }
}

/** @throws FatalError */
export function openIpvs(): IpvsConnection {
  try {
    return IpvsConnection.open();
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'EPROTONOSUPPORT') {
      throw new FatalError(
        exitCodes.kernelUnsupported,
        "the kernel has no IPVS: load it with 'modprobe ip_vs', use a kernel that has it (Debian: linux-image-*; Fedora, RHEL: kernel-modules), or use mode nftables",
        { cause: error },
      );
    }
    throw explainNetlink(error);
  }
}

/** TEST-NET-2 of RFC 5737: an address that nobody has. Upstream tries with the same. */
const trial: VirtualServerKey = { family: 'ip', protocol: 6, address: '198.51.100.0', port: 20_000 };

/** The kernel loads a scheduler when the first virtual server asks for it; so one asks. @throws FatalError */
function tryScheduler(ipvs: IpvsConnection, scheduler: string): void {
  if (ipvs.listServices().some(({ settings }) => settings.scheduler === scheduler)) return;
  try {
    ipvs.addService({
      key: trial,
      settings: { scheduler, flags: 0, timeoutSeconds: 0, clientPrefixLength: 32 },
    });
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'ENOENT') {
      throw new FatalError(
        scheduler in schedulers ? exitCodes.kernelUnsupported : exitCodes.configuration,
        missingScheduler(scheduler),
        { cause: error },
      );
    }
    throw explainNetlink(error);
  }
  ipvs.deleteService(trial);
}
