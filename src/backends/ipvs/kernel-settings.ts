/** Settings of the kernel that mode ipvs needs: sysctls and timeouts (process.md sections 5 and 7). */
import type { Config, IpvsConfig } from '../../config/config.js';
import { errorText, type Logger } from '../../log/logger.js';
import { setSysctl, systemFiles } from '../../node/system/index.js';
import type { IpvsConnection } from '@kube-proxy-ts/netlink/ipvs';
import { openIpvs } from './requirements.js';

interface Sysctl {
  readonly name: string;
  readonly value: number;
  /** What happens without. */
  readonly without: string;
}

function sysctls({ strictARP }: Pick<IpvsConfig, 'strictARP'>, release: string): Sysctl[] {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return [
    {
      name: 'net/ipv4/vs/conntrack',
      value: 1,
      without: 'connections through IPVS cannot be masqueraded',
    },
    // With 1, kernels before 5.9 drop the first packet of a client that uses a port again (moby/ipvs, kubernetes#70747).
    ...(major < 5 || (major === 5 && minor < 9)
      ? [
          {
            name: 'net/ipv4/vs/conn_reuse_mode',
            value: 0,
            without: 'a client that uses a port again waits for a second',
          },
        ]
      : []),
    {
      name: 'net/ipv4/vs/expire_nodest_conn',
      value: 1,
      without: 'connections of endpoints that are gone hang instead of ending',
    },
    {
      name: 'net/ipv4/vs/expire_quiescent_template',
      value: 1,
      without: 'clients with affinity stay with endpoints that take no new connections',
    },
    {
      name: 'net/ipv4/ip_forward',
      value: 1,
      without: 'replies of endpoints on other nodes are not forwarded',
    },
    ...(strictARP
      ? [
          {
            name: 'net/ipv4/conf/all/arp_ignore',
            value: 1,
            without: 'this node answers ARP requests for service addresses',
          },
          {
            name: 'net/ipv4/conf/all/arp_announce',
            value: 2,
            without: 'this node asks for its neighbours in the name of service addresses',
          },
        ]
      : []),
  ];
}

/** Settings of the kernel, each only if it is not so already. What can't be set is a warning. */
export function prepareIpvs(config: Pick<Config, 'ipvs'>, log: Logger): void {
  let release = '';
  try {
    release = systemFiles().read('/proc/sys/kernel/osrelease');
  } catch (error) {
    log.warn('Kernel version unknown', { why: errorText(error) });
  }
  for (const { name, value, without } of sysctls(config.ipvs, release)) {
    try {
      const { changed, before } = setSysctl(name, value);
      if (changed) log.info('Set a sysctl', { name, value, before });
    } catch (error) {
      log.warn(`A sysctl is not as mode ipvs needs it: ${without}`, { why: errorText(error) });
    }
  }
  setTimeouts(config.ipvs, log);
}

function setTimeouts({ tcpTimeoutMs, tcpFinTimeoutMs, udpTimeoutMs }: IpvsConfig, log: Logger): void {
  if (tcpTimeoutMs <= 0 && tcpFinTimeoutMs <= 0 && udpTimeoutMs <= 0) return;
  let ipvs: IpvsConnection | undefined;
  try {
    ipvs = openIpvs();
    // 0 would mean "as it is".
    const seconds = (ms: number): number => (ms <= 0 ? 0 : Math.max(1, Math.round(ms / 1000)));
    ipvs.setTimeouts({
      tcpSeconds: seconds(tcpTimeoutMs),
      tcpFinSeconds: seconds(tcpFinTimeoutMs),
      udpSeconds: seconds(udpTimeoutMs),
    });
    log.info('Set IPVS timeouts', { ...ipvs.getTimeouts() });
  } catch (error) {
    log.warn('Failed to set IPVS timeouts', { why: errorText(error) });
  } finally {
    ipvs?.close();
  }
}
