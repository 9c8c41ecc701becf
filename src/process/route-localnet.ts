/**
 * net.ipv4.conf.all.route_localnet: without it the kernel drops every packet with a loopback address that passes another
 * interface than lo (Documentation/networking/ip-sysctl.rst), translated or not. With it, neighbours could reach
 * services that listen on 127.0.0.1 only (CVE-2020-8558): whoever turns it on has to close that door, see
 * DataplaneOptions.guardLoopback.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { errorText } from '../log/logger.js';

const path = '/proc/sys/net/ipv4/conf/all/route_localnet';

export function routeLocalnetIsOn(): boolean {
  try {
    return readFileSync(path, 'utf8').trim() !== '0';
  } catch {
    return false;
  }
}

/** @returns why it can't be turned on; undefined: it is on */
export function allowRouteLocalnet(): string | undefined {
  if (routeLocalnetIsOn()) return undefined;
  try {
    writeFileSync(path, '1');
    return undefined;
  } catch (error) {
    return `cannot set net.ipv4.conf.all.route_localnet to 1 (${errorText(error)}): let kube-proxy write to /proc/sys (securityContext.privileged), set it on the host, or use --iptables-localhost-nodeports=false`;
  }
}
