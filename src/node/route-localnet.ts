/**
 * net.ipv4.conf.all.route_localnet: without it the kernel drops every packet with a loopback address that passes another
 * interface than lo (Documentation/networking/ip-sysctl.rst), translated or not. With it, neighbours could reach
 * services that listen on 127.0.0.1 only (CVE-2020-8558): whoever turns it on has to close that door, see
 * DataplaneOptions.guardLoopback.
 */
import { errorText } from '../log/logger.js';
import { setSysctl, sysctlPath, systemFiles } from './system/index.js';

const sysctl = 'net/ipv4/conf/all/route_localnet';

export function routeLocalnetIsOn(): boolean {
  try {
    return systemFiles().read(sysctlPath(sysctl)) !== '0';
  } catch {
    return false;
  }
}

/** @returns why it can't be turned on; undefined: it is on */
export function allowRouteLocalnet(): string | undefined {
  try {
    setSysctl(sysctl, 1);
    return undefined;
  } catch (error) {
    return `${errorText(error)}; or use --iptables-localhost-nodeports=false`;
  }
}
