/**
 * Every field of KubeProxyConfiguration v1alpha1 (config.md section 5), in the order in which `/configz` has them. This
 * table drives reading, checking, writing, `--help` and docs/configuration.md; a flag that sets a field stands in its row.
 */
import { isIP } from 'node:net';
import { detectLocalModes } from '../model/addresses/detector.js';
import { parseAddress, parseCidr } from '../model/addresses/addresses.js';
import { findWrongNodePortAddresses } from '../model/addresses/nodeport-addresses.js';
import {
  bool,
  duration,
  durationOrNanoseconds,
  float32,
  int32,
  level,
  optionalBool,
  quantity,
  strings,
  switches,
  text,
  vmodule,
  word,
  type Kind,
  type VmoduleItem,
} from './values/values.js';
import { proxyModeNames, type ProxyMode } from './modes.js';

export const configApiVersion = 'kubeproxy.config.k8s.io/v1alpha1';
export const configKind = 'KubeProxyConfiguration';

/** What a check finds. */
export interface Violation {
  /** The end of a sentence: what is allowed (`must be …`). */
  readonly allowed: string;
  /** Upstream's name of the mistake, where its message is kept; a duplicate says no more than that. */
  readonly type?: 'Invalid value' | 'Duplicate value';
  /** Which item of a list is meant, and its value. */
  readonly item?: { readonly index: number; readonly value: string };
}

/** What a value of the right type has to be. */
export interface Limit<T> {
  /** For the documentation. */
  readonly allowed: string;
  find(value: T): readonly Violation[];
}

interface Row<T, Flag extends string> {
  readonly flag?: Flag;
  /** The flag's letter. */
  readonly short?: string;
  readonly default: NoInfer<T>;
  /** What the documentation shows in place of the default. */
  readonly defaultText?: string;
  /** A document's null stands for the default, zero and false for themselves. Otherwise zero is the default, too. */
  readonly nullable?: true;
  readonly limit?: Limit<NoInfer<T>>;
  /** Other modes do not use it (settingsMode()); what is wrong with it is then only a warning. */
  readonly mode?: ProxyMode;
  /** Left out of documents while it is zero. */
  readonly omitZero?: true;
  /** What it does, for operators: whole sentences. */
  readonly help: string;
}

export interface Field<T, Flag extends string = string> extends Row<T, Flag> {
  readonly kind: Kind<T>;
}

const field = <T, const Flag extends string = never>(kind: Kind<T>, row: Row<T, Flag>): Field<T, Flag> => ({
  kind,
  ...row,
});

const wrong = (allowed: string): readonly Violation[] => [{ allowed }];
const fine: readonly Violation[] = [];

/** @param find what is wrong with a value: the end of a sentence; undefined: nothing */
const limit = <T>(allowed: string, find: (value: T) => string | undefined): Limit<T> => ({
  allowed,
  find: (value) => {
    const found = find(value);
    return found === undefined ? fine : wrong(found);
  },
});

const between = (least: number, most: number): Limit<number> =>
  limit(`${least} to ${most}`, (value) =>
    value < least || value > most ? `must be from ${least} to ${most}` : undefined,
  );
export const notNegative: Limit<number> = limit('not negative', (value) =>
  value < 0 ? 'must not be negative' : undefined,
);
export const serviceNames: Limit<readonly string[]> = limit('namespace/name each', (names) =>
  names.every((name) => /^[^/\s]+\/[^/\s]+$/.test(name))
    ? undefined
    : 'must name Services, each as namespace/name',
);
const positive: Limit<number> = limit('greater than 0', (value) =>
  value <= 0 ? 'must be greater than 0' : undefined,
);
const oneOf = (words: readonly string[], orEmpty: string): Limit<string> =>
  limit(`${words.join(', ')}, empty`, (value) =>
    value === '' || words.includes(value) ? undefined : `must be ${words.join(', ')}, or empty ${orEmpty}`,
  );

const cidrs: Limit<readonly string[]> = {
  allowed: 'CIDRs',
  find: (values) =>
    values.flatMap((value, index) =>
      parseCidr(value) === undefined
        ? [{ allowed: 'must be a CIDR such as 192.0.2.0/24', item: { index, value } }]
        : [],
    ),
};

const nodePortAddresses: Limit<readonly string[]> = {
  allowed: 'CIDRs and the keywords primary, localhost, all, each keyword once',
  find: findWrongNodePortAddresses,
};

const clusterCIDRs: Limit<string> = limit('a CIDR, or one of each family', (value) => {
  const items = splitClusterCIDR(value);
  const bad = items.find((item) => parseCidr(item) === undefined);
  if (bad !== undefined) {
    return `must be a CIDR such as 10.244.0.0/16, but ${JSON.stringify(bad)} is not`;
  }
  const families = new Set(items.map((item) => parseCidr(item)?.family));
  return items.length > 2 || families.size !== items.length
    ? 'must be one CIDR, or one of each family such as 10.244.0.0/16,fd00:10:244::/64'
    : undefined;
});

const vmodulePatterns: Limit<readonly VmoduleItem[]> = {
  allowed: "patterns without '=' and ','",
  find: (items) =>
    items.flatMap(({ filePattern: value }, index) => {
      if (value !== '' && !/[=,]/.test(value)) return [];
      const allowed = value === '' ? 'must not be empty' : "must not have '=' or ','";
      return [{ allowed: `filePattern ${allowed}`, item: { index, value } }];
    }),
};

/** The items of clusterCIDR. */
export const splitClusterCIDR = (value: string): readonly string[] => (value === '' ? [] : value.split(','));

/** An address as it is written where there is to be no server. Upstream can't do without the metrics server. */
export const noServer = '0';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `IP:port` or `[IPv6]:port`. @returns what is wrong with it, as the end of a sentence */
export function parseHostPort(value: string): HostPort | string {
  const mustBe = 'must be IP:port, such as 0.0.0.0:10256 or [::]:10256';
  const match = /^(?:\[([^\]]*)\]|([^:]*)):([^:]*)$/.exec(value);
  if (match === null) return mustBe;
  const host = parseAddress(match[1] ?? match[2] ?? '')?.ip;
  const port = /^\d{1,5}$/.test(match[3] ?? '') ? Number(match[3]) : 0;
  const found: string[] = [];
  if (host === undefined) found.push(`${JSON.stringify(match[1] ?? match[2])} is not an IP address`);
  if (port < 1 || port > 65535) found.push(`${JSON.stringify(match[3])} is not a port from 1 to 65535`);
  if (host === undefined || found.length > 0) return `${mustBe}, but ${found.join(' and ')}`;
  return { host, port };
}

/** @returns the address with a port: `defaultPort` where it is only an IP address */
export function withPort(value: string, defaultPort: number): string {
  if (isIP(value) === 0 && parseAddress(value) === undefined) return value;
  return value.includes(':') ? `[${value}]:${defaultPort}` : `${value}:${defaultPort}`;
}

const hostPort: Limit<string> = limit('IP:port, IP, or 0', (value) => {
  const parsed = value === noServer ? undefined : parseHostPort(value);
  return typeof parsed === 'string' ? parsed : undefined;
});

const contentType: Limit<string> = limit('application/vnd.kubernetes.protobuf, application/json', (value) =>
  Object.hasOwn(contentTypes, value) ? undefined : `must be ${Object.keys(contentTypes).join(' or ')}`,
);
const logFormat: Limit<string> = limit('text, json', (value) =>
  ['text', 'json'].includes(value) ? undefined : 'must be text or json',
);
const notBlank: Limit<string> = limit('not blank', (value) =>
  value !== '' && value.trim() === '' ? 'must not be blank' : undefined,
);
const anIP: Limit<string> = limit('an IP address', (value) =>
  parseAddress(value) === undefined ? 'must be an IP address, without a port' : undefined,
);

/** The release before this one, and the one that a configuration for that release could name. */
const hiddenMetricsVersions = ['1.36', '1.35'] as const;

const hours = 3_600_000;
const minutes = 60_000;
const seconds = 1_000;

export const fields = {
  featureGates: field(switches, {
    flag: 'feature-gates',
    default: {},
    omitZero: true,
    help: 'Feature gates of Kubernetes, name=true or name=false. All names of v1.36 and v1.37 are known, so that one list serves all components; see "Feature gates" for those that act.',
  }),
  'clientConnection.kubeconfig': field(text, {
    flag: 'kubeconfig',
    default: '',
    help: "Path of a kubeconfig file with the address of the API server and credentials. Empty, and without --master and --manifests: the pod's service account.",
  }),
  'clientConnection.acceptContentTypes': field(text, {
    default: '',
    help: 'The Accept header of requests to the API server. Empty: what follows from contentType.',
  }),
  'clientConnection.contentType': field(text, {
    flag: 'kube-api-content-type',
    default: 'application/vnd.kubernetes.protobuf',
    limit: contentType,
    help: 'Encoding asked of the API server: application/vnd.kubernetes.protobuf or application/json.',
  }),
  'clientConnection.qps': field(float32, {
    flag: 'kube-api-qps',
    default: 5,
    help: 'Requests to the API server per second in the long run. Negative: no limit.',
  }),
  'clientConnection.burst': field(int32, {
    flag: 'kube-api-burst',
    default: 10,
    limit: notNegative,
    help: 'Requests to the API server that may be sent at once, above the rate of qps.',
  }),
  'logging.format': field(text, {
    flag: 'logging-format',
    default: 'text',
    limit: logFormat,
    help: 'Layout of log lines: text (as klog) or json.',
  }),
  'logging.flushFrequency': field(durationOrNanoseconds, {
    flag: 'log-flush-frequency',
    default: 5 * seconds,
    limit: positive,
    help: 'How long a log line may wait in the buffer that infoBufferSize asks for.',
  }),
  'logging.verbosity': field(level, {
    flag: 'v',
    short: 'v',
    default: 0,
    help: 'How much is logged: 0 what an operator needs, 2 the usual for troubleshooting, more for details. Settable at run time through /debug/flags/v.',
  }),
  'logging.vmodule': field(vmodule, {
    flag: 'vmodule',
    default: [],
    omitZero: true,
    limit: vmodulePatterns,
    help: 'Verbosity by source file or by logger, pattern=N, for example sync*=4. Text format only.',
  }),
  'logging.options.text.splitStream': field(bool, {
    flag: 'log-text-split-stream',
    default: false,
    omitZero: true,
    help: 'In text format: information to standard output, warnings and errors to standard error. Needs the feature gate LoggingAlphaOptions.',
  }),
  'logging.options.text.infoBufferSize': field(quantity, {
    flag: 'log-text-info-buffer-size',
    default: 0,
    help: 'In text format with splitStream: bytes of information lines that may be held back, 0 for none; 512, 64Ki, 1M. Needs the feature gate LoggingAlphaOptions.',
  }),
  'logging.options.json.splitStream': field(bool, {
    flag: 'log-json-split-stream',
    default: false,
    omitZero: true,
    help: 'The same in json format.',
  }),
  'logging.options.json.infoBufferSize': field(quantity, {
    flag: 'log-json-info-buffer-size',
    default: 0,
    help: 'The same in json format.',
  }),
  hostnameOverride: field(text, {
    flag: 'hostname-override',
    default: '',
    limit: notBlank,
    help: "Name of this node's Node object, if it is not the hostname. Blanks around it are cut, capitals made small.",
  }),
  bindAddress: field(word('ip'), {
    flag: 'bind-address',
    default: '0.0.0.0',
    limit: anIP,
    help: "Overrides the node's IP address, which decides which addresses 'primary' means and which source ranges contain the node. Unspecified (0.0.0.0 or ::): the Node object's addresses. Nothing listens on it.",
  }),
  healthzBindAddress: field(word('ipport'), {
    flag: 'healthz-bind-address',
    default: '0.0.0.0:10256',
    limit: hostPort,
    help: 'Address and port of /healthz and /livez. Without a port: 10256. In a document whose bindAddress is IPv6 the default is [::]:10256. 0: no server.',
  }),
  metricsBindAddress: field(word('ipport'), {
    flag: 'metrics-bind-address',
    default: '127.0.0.1:10249',
    limit: hostPort,
    help: 'Address and port of /metrics, /proxyMode, /configz and their like. Without a port: 10249. In a document whose bindAddress is IPv6 the default is [::1]:10249. 0: no server.',
  }),
  bindAddressHardFail: field(bool, {
    flag: 'bind-address-hard-fail',
    default: false,
    help: 'Exit when the health or metrics port cannot be bound, instead of trying again every 5 s.',
  }),
  enableProfiling: field(bool, {
    flag: 'profiling',
    default: false,
    help: 'Serve /debug/pprof and /debug/flags on the metrics port.',
  }),
  showHiddenMetricsForVersion: field(text, {
    flag: 'show-hidden-metrics-for-version',
    default: '',
    limit: oneOf(hiddenMetricsVersions, 'to show none'),
    help: 'Show the metrics again that were hidden since this version. Only 1.36, the version before this one, can be named (and 1.35, which a configuration for v1.36 may have); kube-proxy has hidden none in them.',
  }),
  mode: field(word('ProxyMode'), {
    flag: 'proxy-mode',
    default: '',
    limit: oneOf(proxyModeNames, 'for the automatic choice'),
    help: "How Services are put into the kernel: nftables, iptables or ipvs. Empty: nftables where the kernel has it, with the settings and the reach of mode iptables, upstream's default.",
  }),
  'iptables.masqueradeBit': field(int32, {
    flag: 'iptables-masquerade-bit',
    default: 14,
    nullable: true,
    limit: between(0, 31),
    help: 'Bit of the packet mark that says "to be masqueraded", in modes iptables, ipvs and automatic.',
  }),
  'iptables.masqueradeAll': field(bool, {
    flag: 'masquerade-all',
    default: false,
    help: 'Masquerade all traffic to cluster IPs. The field counts in modes iptables, ipvs and automatic, the flag in every mode.',
  }),
  'iptables.localhostNodePorts': field(optionalBool, {
    flag: 'iptables-localhost-nodeports',
    default: null,
    defaultText: 'true; in mode nftables false',
    help: 'Serve node ports on loopback addresses too, where nodePortAddresses has them. Counts in every mode in which it is set.',
  }),
  'iptables.syncPeriod': field(duration, {
    flag: 'iptables-sync-period',
    default: 30 * seconds,
    limit: positive,
    mode: 'iptables',
    help: 'How soon a failed transaction is tried again at the latest, and half of the time without progress after which the process counts as unhealthy. The field counts in modes iptables and automatic, the flag in every mode but ipvs.',
  }),
  'iptables.minSyncPeriod': field(duration, {
    flag: 'iptables-min-sync-period',
    default: 10,
    limit: notNegative,
    mode: 'iptables',
    help: 'Least time between two transactions; changes that come sooner are taken together. Counts where syncPeriod counts.',
  }),
  'ipvs.syncPeriod': field(duration, {
    flag: 'ipvs-sync-period',
    default: 30 * seconds,
    limit: positive,
    mode: 'ipvs',
    help: 'As iptables.syncPeriod, in mode ipvs.',
  }),
  'ipvs.minSyncPeriod': field(duration, {
    flag: 'ipvs-min-sync-period',
    default: 10,
    limit: notNegative,
    mode: 'ipvs',
    help: 'As iptables.minSyncPeriod, in mode ipvs.',
  }),
  'ipvs.scheduler': field(text, {
    flag: 'ipvs-scheduler',
    default: '',
    mode: 'ipvs',
    help: "The kernel's IPVS scheduler. Empty: rr.",
  }),
  'ipvs.excludeCIDRs': field(strings, {
    flag: 'ipvs-exclude-cidrs',
    default: [],
    limit: cidrs,
    mode: 'ipvs',
    help: 'IPVS services on these addresses belong to others and are left alone.',
  }),
  'ipvs.strictARP': field(bool, {
    flag: 'ipvs-strict-arp',
    default: false,
    mode: 'ipvs',
    help: 'Answer and announce by ARP only addresses of the interface itself (arp_ignore=1, arp_announce=2).',
  }),
  'ipvs.tcpTimeout': field(duration, {
    flag: 'ipvs-tcp-timeout',
    default: 0,
    limit: notNegative,
    mode: 'ipvs',
    help: 'How long an idle TCP connection is kept by IPVS. 0s: as the kernel has it.',
  }),
  'ipvs.tcpFinTimeout': field(duration, {
    flag: 'ipvs-tcpfin-timeout',
    default: 0,
    limit: notNegative,
    mode: 'ipvs',
    help: 'The same for a TCP connection after its FIN. 0s: as the kernel has it.',
  }),
  'ipvs.udpTimeout': field(duration, {
    flag: 'ipvs-udp-timeout',
    default: 0,
    limit: notNegative,
    mode: 'ipvs',
    help: 'The same for UDP. 0s: as the kernel has it.',
  }),
  'nftables.masqueradeBit': field(int32, {
    default: 14,
    nullable: true,
    limit: between(0, 31),
    mode: 'nftables',
    help: 'As iptables.masqueradeBit, in mode nftables.',
  }),
  'nftables.masqueradeAll': field(bool, {
    flag: 'masquerade-all',
    default: false,
    mode: 'nftables',
    help: 'As iptables.masqueradeAll, in mode nftables.',
  }),
  'nftables.syncPeriod': field(duration, {
    flag: 'iptables-sync-period',
    default: 30 * seconds,
    limit: positive,
    mode: 'nftables',
    help: 'As iptables.syncPeriod, in mode nftables.',
  }),
  'nftables.minSyncPeriod': field(duration, {
    flag: 'iptables-min-sync-period',
    default: 10,
    limit: notNegative,
    mode: 'nftables',
    help: 'As iptables.minSyncPeriod, in mode nftables.',
  }),
  'winkernel.networkName': field(text, { default: '', help: 'Windows only; no effect here.' }),
  'winkernel.sourceVip': field(text, { default: '', help: 'Windows only; no effect here.' }),
  'winkernel.enableDSR': field(bool, { default: false, help: 'Windows only; no effect here.' }),
  'winkernel.rootHnsEndpointName': field(text, { default: '', help: 'Windows only; no effect here.' }),
  'winkernel.forwardHealthCheckVip': field(bool, { default: false, help: 'Windows only; no effect here.' }),
  detectLocalMode: field(word('LocalMode'), {
    flag: 'detect-local-mode',
    default: 'ClusterCIDR',
    limit: oneOf(detectLocalModes, 'for ClusterCIDR'),
    help: 'How traffic of pods is told from that of others: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.',
  }),
  'detectLocal.bridgeInterface': field(text, {
    flag: 'pod-bridge-interface',
    default: '',
    help: 'In local mode BridgeInterface: the bridge that pods are attached to.',
  }),
  'detectLocal.interfaceNamePrefix': field(text, {
    flag: 'pod-interface-name-prefix',
    default: '',
    help: "In local mode InterfaceNamePrefix: how the names of the pods' interfaces begin.",
  }),
  clusterCIDR: field(text, {
    flag: 'cluster-cidr',
    default: '',
    limit: clusterCIDRs,
    help: "In local mode ClusterCIDR: the cluster's pod range, or one of each family with a comma between. Sources outside are masqueraded when they use a cluster IP. Empty: nothing is known of where pods are.",
  }),
  nodePortAddresses: field(strings, {
    flag: 'nodeport-addresses',
    default: [],
    defaultText: 'empty; in mode nftables primary',
    limit: nodePortAddresses,
    help: "Node addresses that serve node ports: CIDRs and keywords in any mix. 'primary': the node's own IPs; 'localhost': 127.0.0.0/8 and ::1/128; 'all': 0.0.0.0/0 and ::/0. A family that the list says nothing about is open on all addresses. Empty: all.",
  }),
  oomScoreAdj: field(int32, {
    flag: 'oom-score-adj',
    default: -999,
    nullable: true,
    limit: between(-1000, 1000),
    help: 'The oom_score_adj of the process: how late the kernel kills it when memory runs out.',
  }),
  'conntrack.maxPerCore': field(int32, {
    flag: 'conntrack-max-per-core',
    default: 32768,
    nullable: true,
    limit: notNegative,
    help: 'Connections that the kernel may track, per processor core. 0: the limit is left alone, and min does not count.',
  }),
  'conntrack.min': field(int32, {
    flag: 'conntrack-min',
    default: 131072,
    nullable: true,
    limit: notNegative,
    help: 'Least limit of tracked connections, however few cores there are.',
  }),
  'conntrack.tcpEstablishedTimeout': field(duration, {
    flag: 'conntrack-tcp-timeout-established',
    default: 24 * hours,
    nullable: true,
    limit: notNegative,
    help: 'How long an idle TCP connection is tracked. 0s: as the kernel has it.',
  }),
  'conntrack.tcpCloseWaitTimeout': field(duration, {
    flag: 'conntrack-tcp-timeout-close-wait',
    default: 1 * hours,
    nullable: true,
    limit: notNegative,
    help: 'How long a TCP connection is tracked that one side has closed. 0s: as the kernel has it.',
  }),
  'conntrack.tcpBeLiberal': field(bool, {
    flag: 'conntrack-tcp-be-liberal',
    default: false,
    help: 'Track TCP packets outside of the window as valid ones (nf_conntrack_tcp_be_liberal).',
  }),
  'conntrack.udpTimeout': field(duration, {
    flag: 'conntrack-udp-timeout',
    default: 0,
    limit: notNegative,
    help: 'How long a UDP flow without an answer is tracked. 0s: as the kernel has it.',
  }),
  'conntrack.udpStreamTimeout': field(duration, {
    flag: 'conntrack-udp-timeout-stream',
    default: 0,
    limit: notNegative,
    help: 'How long a UDP flow with answers is tracked. 0s: as the kernel has it.',
  }),
  configSyncPeriod: field(duration, {
    flag: 'config-sync-period',
    default: 15 * minutes,
    limit: positive,
    help: 'How often upstream goes through the objects of the API server again although nothing changed. Here changes act when they come, and the kernel tells when it was changed, so the value is checked, but has no effect.',
  }),
  portRange: field(text, { default: '', help: 'Without effect for many versions; always written as "".' }),
  windowsRunAsService: field(bool, {
    default: false,
    omitZero: true,
    help: 'Windows only; no effect here.',
  }),
  // Without the flag: a wider type for it here would widen each row's own.
} satisfies Readonly<Record<string, Omit<Field<unknown>, 'flag'>>>;

/** What the API server is asked to send, by its media type. */
export const contentTypes: Readonly<Record<string, 'protobuf' | 'json'>> = {
  'application/vnd.kubernetes.protobuf': 'protobuf',
  'application/json': 'json',
};

export type FieldPath = keyof typeof fields;
export const fieldPaths = Object.keys(fields) as readonly FieldPath[];
export const fieldOf = (path: FieldPath): Field<unknown> => fields[path];

/** Flags that set a field. */
export type FieldFlag = {
  [P in FieldPath]: (typeof fields)[P] extends { readonly flag?: infer Flag } ? Extract<Flag, string> : never;
}[FieldPath];

/** A value for every field. */
export type FieldValues = {
  readonly [P in FieldPath]: (typeof fields)[P]['kind'] extends Kind<infer T> ? T : never;
};
