/** Which IP families this node has. */
import { existsSync, readFileSync } from 'node:fs';
import type { IPFamily } from '../model/types.js';

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
