/**
 * Tables as a node has them that ran kube-proxy in mode iptables or ipvs, with rules of the kubelet, of a network plugin and
 * of the operator around them; as input for iptables-restore. (dataplane-iptables.md sections 2 to 5, dataplane-ipvs.md
 * section 6.)
 */
export interface NodeRules {
  /** Before kube-proxy came, and after it is gone. */
  readonly foreign: string;
  readonly ours: string;
}

interface Words {
  readonly any: string;
  readonly cluster: string;
  readonly endpoint: string;
  readonly endpointPort: string;
  readonly loopback: string;
  readonly outside: string;
  readonly reject: string;
}

const words: Readonly<Record<'ip' | 'ip6', Words>> = {
  ip: {
    any: '0.0.0.0/0',
    cluster: '10.96.0.1/32',
    endpoint: '10.61.1.5/32',
    endpointPort: '10.61.1.5:8443',
    loopback: '127.0.0.0/8',
    outside: '198.51.100.0/24',
    reject: 'icmp-port-unreachable',
  },
  ip6: {
    any: '::/0',
    cluster: 'fd00:96::1/128',
    endpoint: 'fd00:61::5/128',
    endpointPort: '[fd00:61::5]:8443',
    loopback: '::1/128',
    outside: '2001:db8:9::/64',
    reject: 'icmp6-port-unreachable',
  },
};

/** Rules of others, in all of their variety: no target, goto, negation, counters, state in the kernel. */
function foreign(w: Words): string {
  return `*mangle
:PREROUTING ACCEPT [7:700]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
[3:180] -A PREROUTING -s ${w.outside} -j MARK --set-xmark 0x7/0xffffffff
COMMIT
*nat
:PREROUTING ACCEPT [1:60]
:INPUT ACCEPT [2:120]
:OUTPUT ACCEPT [3:180]
:POSTROUTING ACCEPT [4:240]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:PLUGIN-POSTROUTING - [0:0]
:PLUGIN-MASQ - [0:0]
[5:300] -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
[6:360] -A POSTROUTING -m comment --comment "says -j KUBE-SERVICES, and \\"quotes\\"" -j PLUGIN-POSTROUTING
[7:420] -A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
[8:480] -A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8081 -j DNAT --to-destination ${w.endpointPort}
[9:540] -A PLUGIN-POSTROUTING -s ${w.endpoint} -g PLUGIN-MASQ
[10:600] -A PLUGIN-MASQ ! -o lo -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [11:660]
:FORWARD DROP [12:720]
:OUTPUT ACCEPT [13:780]
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
:OPERATOR - [0:0]
[14:840] -A INPUT -j KUBE-FIREWALL
[15:900] -A INPUT -p tcp -m tcp --dport 22
[16:960] -A INPUT -j OPERATOR
[17:1020] -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[18:1080] -A FORWARD -s ${w.outside} -j KUBE-NWPLCY-DEFAULT
[19:1140] -A OUTPUT -j KUBE-FIREWALL
[20:1200] -A KUBE-FIREWALL ! -s ${w.loopback} -d ${w.loopback} -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
[21:1260] -A KUBE-NWPLCY-DEFAULT -m recent --set --name plugin --mask ${w.any === '::/0' ? 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' : '255.255.255.255'} --rsource
[22:1320] -A OPERATOR -p tcp -m multiport --dports 80,443 -j ACCEPT
[23:1380] -A OPERATOR -j REJECT --reject-with ${w.reject}
COMMIT
`;
}

function iptablesMode(w: Words): string {
  const service = `-d ${w.cluster} -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443`;
  return `*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-SVL-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-EXT-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-FW-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-SEP-IT2ZTR26TO4XFPTO - [0:0]
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES ${service} -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/kubernetes:https" -m tcp --dport 30443 -j KUBE-EXT-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y ${service} ! -s ${w.outside} -j KUBE-MARK-MASQ
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/kubernetes:https -> ${w.endpointPort}" -m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-IT2ZTR26TO4XFPTO -j KUBE-SEP-IT2ZTR26TO4XFPTO
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/kubernetes:https -> ${w.endpointPort}" -m statistic --mode random --probability 0.5 -j KUBE-SEP-IT2ZTR26TO4XFPTO
-A KUBE-SVL-NPX46M4PTMTKRN6Y -j KUBE-SEP-IT2ZTR26TO4XFPTO
-A KUBE-EXT-NPX46M4PTMTKRN6Y -m comment --comment "masquerade traffic for default/kubernetes:https external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-NPX46M4PTMTKRN6Y -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-FW-NPX46M4PTMTKRN6Y -m comment --comment "other traffic to default/kubernetes:https will be dropped by KUBE-PROXY-FIREWALL"
-A KUBE-SEP-IT2ZTR26TO4XFPTO -s ${w.endpoint} -m comment --comment "default/kubernetes:https" -j KUBE-MARK-MASQ
-A KUBE-SEP-IT2ZTR26TO4XFPTO -p tcp -m comment --comment "default/kubernetes:https" -m recent --set --name KUBE-SEP-IT2ZTR26TO4XFPTO -m tcp -j DNAT --to-destination ${w.endpointPort}
COMMIT
*filter
:KUBE-PROXY-CANARY - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-I INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A KUBE-SERVICES -d ${w.cluster} -p udp -m comment --comment "default/empty has no endpoints" -m udp --dport 53 -j REJECT --reject-with ${w.reject}
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/kubernetes health check node port" -m tcp --dport 32000 -j ACCEPT
COMMIT
`;
}

/** What mode ipvs adds to the chains that both modes use; needs the sets. */
function ipvsMode(w: Words, family: 'ip' | 'ip6'): string {
  const prefix = family === 'ip' ? 'KUBE-' : 'KUBE-6-';
  return `*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -s ${w.loopback} -j RETURN
-A KUBE-SERVICES -m set --match-set ${prefix}CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-NODE-PORT -p tcp -m set --match-set ${prefix}NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-I INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT
-I INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-I FORWARD -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-I INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-I OUTPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set ${prefix}CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set ${prefix}IPVS-IPS dst -j REJECT --reject-with ${w.reject}
COMMIT
`;
}

export function nodeRules(mode: 'iptables' | 'ipvs', family: 'ip' | 'ip6'): NodeRules {
  const w = words[family];
  return { foreign: foreign(w), ours: mode === 'iptables' ? iptablesMode(w) : ipvsMode(w, family) };
}
