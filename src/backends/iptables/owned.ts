/**
 * Chains of mode iptables, upstream's and ours. Chains of the kubelet (KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY,
 * KUBE-IPTABLES-HINT) are not among them, nor are those of other programs that begin with KUBE-.
 */
import type { Owned, XtableName } from '../owned.js';
import { isServiceChain } from './rules/names.js';

const chains: Readonly<Record<XtableName, ReadonlySet<string>>> = {
  nat: new Set([
    'KUBE-SERVICES',
    'KUBE-POSTROUTING',
    'KUBE-MARK-MASQ',
    'KUBE-NODEPORTS',
    'KUBE-PROXY-CANARY',
    'KUBE-PROXY-PROBE',
  ]),
  filter: new Set([
    'KUBE-FORWARD',
    'KUBE-PROXY-FIREWALL',
    'KUBE-SERVICES',
    'KUBE-EXTERNAL-SERVICES',
    'KUBE-NODEPORTS',
    'KUBE-PROXY-CANARY',
    'KUBE-PROXY-PROBE',
  ]),
  mangle: new Set(['KUBE-PROXY-CANARY', 'KUBE-PROXY-PROBE']),
};

/** Of versions before 1.24. */
const formerServiceChain = /^KUBE-XLB-[A-Z2-7]{16}$/;

export const owned: Owned = {
  tables: [],
  ownsChain: (table, name) =>
    chains[table].has(name) ||
    (table !== 'mangle' && (isServiceChain(name) || formerServiceChain.test(name))),
  ipsets: new Set(),
};
