/**
 * The walk over every field and every flag: its default, what is accepted and what it then means, what is refused and with which
 * message. The tables are typed by the names in fields.ts and flags.ts: one without a row does not compile.
 */
import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { describe, test } from 'node:test';
import type { Config } from './config.js';
import { fieldOf, fieldPaths, type FieldFlag, type FieldPath } from './fields.js';
import { controlFlags, flags, type ControlFlag } from './flags/flags.js';
import { documentOf, fileName, fromFields, fromFlags, fromText, problemsOf } from './testing/load.js';
import type { Json } from './values/values.js';

interface Row {
  /** Where the value is in the configuration. */
  readonly of: (config: Config) => unknown;
  readonly default: unknown;
  readonly accept: readonly (readonly [value: Json, meaning: unknown])[];
  readonly refuse: readonly (readonly [value: Json, message: RegExp])[];
  /** Fields that have to be set along with it. */
  readonly beside?: Readonly<Record<string, Json>>;
}

const s = 1000;
const h = 3600 * s;
const durationRefusals: Row['refuse'] = [
  ['30', /"30": must be a duration such as 300ms, 5s or 1m30s$/],
  [30, /30: must be a duration/],
  ['', /"": must be a duration/],
  ['5d', /"5d": must be a duration/],
  [true, /true: must be a duration/],
];
const negative = ['-5s', /"-5s": must not be negative$/] as const;
const zeroPeriod = ['-1s', /"-1s": must be greater than 0$/] as const;
const notText = (value: Json = 5): Row['refuse'][number] => [
  value,
  new RegExp(`${JSON.stringify(value).replace(/[[\]{}]/g, '\\$&')}: must be text$`),
];
const notBool: Row['refuse'] = [
  ['true', /"true": must be true or false$/],
  [1, /1: must be true or false$/],
];
const int32Refusals: Row['refuse'] = [
  ['14', /"14": must be a number from -2147483648 to 2147483647$/],
  [1.5, /1.5: must be a number/],
  [2 ** 31, /2147483648: must be a number from/],
];
const ignoredText: Row = {
  of: () => undefined,
  default: undefined,
  accept: [['anything', undefined]],
  refuse: [notText()],
};
const ignoredSwitch: Row = {
  of: () => undefined,
  default: undefined,
  accept: [[true, undefined]],
  refuse: notBool,
};
const nftables = { mode: 'nftables' };
const ipvs = { mode: 'ipvs' };

const fieldRows: { readonly [Path in FieldPath]: Row } = {
  featureGates: {
    of: ({ gates }) => [gates.AllowServiceExternalIPs, gates['ClientsAllowCBOR'], gates.ComponentFlagz],
    default: [true, false, true],
    accept: [
      [{ AllowServiceExternalIPs: false, ClientsAllowCBOR: true }, [false, true, true]],
      [{ AllBeta: false }, [true, false, false]],
      [{ AllAlpha: true }, [true, true, true]],
      [{ APIServerTracing: true, GangScheduling: true }, [true, false, true]],
      [{ AllBeta: false, ComponentFlagz: true }, [true, false, true]],
      [{}, [true, false, true]],
    ],
    refuse: [
      [{ Magic: true }, /"Magic=true": Magic is not a feature gate of Kubernetes v1\.37$/],
      [{ ComponentFlags: true }, /ComponentFlags is not a feature gate .*\(did you mean ComponentFlagz\?\)$/],
      [{ NFTablesProxyMode: false }, /"NFTablesProxyMode=false": NFTablesProxyMode is locked to true$/],
      [
        { AtomicFIFO: false },
        /"StaleControllerConsistencyDaemonSet": StaleControllerConsistencyDaemonSet is on, but needs AtomicFIFO, which is off$/,
      ],
      [{ ComponentFlagz: 'yes' }, /must be a map of names to true or false$/],
      [['ComponentFlagz'], /\["ComponentFlagz"\]: must be a map/],
    ],
  },
  'clientConnection.kubeconfig': {
    of: ({ client }) => client.kubeconfig,
    default: '',
    accept: [['/etc/kube', '/etc/kube']],
    refuse: [notText()],
  },
  'clientConnection.acceptContentTypes': {
    of: ({ client }) => client.acceptContentTypes,
    default: '',
    accept: [['application/json', 'application/json']],
    refuse: [notText([])],
  },
  'clientConnection.contentType': {
    of: ({ client }) => client.contentType,
    default: 'protobuf',
    accept: [
      ['application/json', 'json'],
      ['application/vnd.kubernetes.protobuf', 'protobuf'],
      ['', 'protobuf'],
    ],
    refuse: [
      ['text/plain', /"text\/plain": must be application\/vnd\.kubernetes\.protobuf or application\/json$/],
      ['toString', /"toString": must be/],
    ],
  },
  'clientConnection.qps': {
    of: ({ client }) => client.qps,
    default: 5,
    accept: [
      [0, 5],
      [-1, -1],
      [0.5, 0.5],
    ],
    refuse: [['5', /"5": must be a number$/]],
  },
  'clientConnection.burst': {
    of: ({ client }) => client.burst,
    default: 10,
    accept: [
      [0, 10],
      [100, 100],
    ],
    refuse: [...int32Refusals, [-1, /-1: must not be negative$/]],
  },
  'logging.format': {
    of: ({ logging }) => logging.format,
    default: 'text',
    accept: [
      ['json', 'json'],
      ['text', 'text'],
      ['', 'text'],
    ],
    refuse: [['xml', /"xml": must be text or json$/]],
  },
  'logging.flushFrequency': {
    of: ({ logging }) => logging.flushFrequencyMs,
    default: 5 * s,
    accept: [
      [0, 5 * s],
      ['0s', 5 * s],
      ['1m', 60 * s],
      [2_000_000_000, 2 * s],
    ],
    refuse: [
      [-1, /"-1ns": must be greater than 0$/],
      ['5', /"5": must be a duration/],
      [true, /true: must be a duration such as 5s, or a number of nanoseconds$/],
    ],
  },
  'logging.verbosity': {
    of: ({ logging }) => logging.verbosity,
    default: 0,
    accept: [
      [4, 4],
      [2147483647, 2147483647],
    ],
    refuse: [
      [-1, /-1: must be a number from 0 to 2147483647$/],
      [2147483648, /2147483648: must be a number from 0 to 2147483647$/],
      ['4', /"4": must be a number/],
    ],
  },
  'logging.vmodule': {
    of: ({ logging }) => logging.vmodule,
    default: [],
    accept: [
      [[{ filePattern: 'sync*', verbosity: 5 }], [{ filePattern: 'sync*', verbosity: 5 }]],
      [[{ filePattern: 'a' }], [{ filePattern: 'a', verbosity: 0 }]],
    ],
    refuse: [
      ['a=1', /"a=1": must be a list of \{filePattern, verbosity\}$/],
      [[5], /must be a list of/],
      [[{ filePattern: 'a', verbosity: -1 }], /verbosity must be a number from 0 to 2147483647$/],
      [[{ filePattern: '', verbosity: 1 }], /logging\.vmodule\[0\]: "": filePattern must not be empty$/],
      [
        [{ filePattern: 'ok' }, { filePattern: 'a=b', verbosity: 1 }],
        /logging\.vmodule\[1\]: "a=b": filePattern must not have '=' or ','$/,
      ],
    ],
  },
  'logging.options.text.splitStream': {
    of: ({ logging }) => logging.splitStream,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
    beside: { 'featureGates.LoggingAlphaOptions': true },
  },
  'logging.options.text.infoBufferSize': {
    of: ({ logging }) => logging.infoBufferBytes,
    default: 0,
    accept: [
      ['0', 0],
      [512, 512],
      ['1K', 1000],
      ['2Ki', 2048],
      ['1.5Mi', 1572864],
      ['6Gi', 2 ** 31],
      ['3E', 2 ** 31],
      ['1e3', 1000],
      ['.5k', 500],
      ['1500m', 2],
    ],
    refuse: [
      ['many', /"many": must be a number of bytes such as 512, 64Ki or 1M$/],
      ['-1', /"-1": must be a number of bytes/],
      ['1e3k', /"1e3k": must be/],
      ['1 k', /"1 k": must be/],
      [true, /true: must be a number of bytes/],
    ],
    beside: { 'featureGates.LoggingAlphaOptions': true },
  },
  'logging.options.json.splitStream': {
    of: ({ logging }) => logging.splitStream,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
    beside: { 'featureGates.LoggingAlphaOptions': true, 'logging.format': 'json' },
  },
  'logging.options.json.infoBufferSize': {
    of: ({ logging }) => logging.infoBufferBytes,
    default: 0,
    accept: [['1k', 1000]],
    refuse: [['1ki', /"1ki": must be a number of bytes/]],
    beside: { 'featureGates.LoggingAlphaOptions': true, 'logging.format': 'json' },
  },
  hostnameOverride: {
    of: ({ nodeName }) => nodeName,
    default: hostname().trim().toLowerCase(),
    accept: [
      ['alder', 'alder'],
      [' Alder ', 'alder'],
      ['', hostname().trim().toLowerCase()],
    ],
    refuse: [
      ['  ', /: " {2}": must not be blank$/],
      [5, /5: must be text$/],
    ],
  },
  bindAddress: {
    of: ({ bindAddress }) => bindAddress,
    default: '0.0.0.0',
    accept: [
      ['192.0.2.1', '192.0.2.1'],
      ['fd00::1', 'fd00::1'],
      ['::', '::'],
      ['', '0.0.0.0'],
    ],
    refuse: [
      ['1.2.3.4:5', /"1\.2\.3\.4:5": must be an IP address, without a port$/],
      ['[::]', /"\[::\]": must be an IP address/],
      ['localhost', /"localhost": must be an IP address/],
    ],
  },
  healthzBindAddress: {
    of: ({ healthzBindAddress }) => healthzBindAddress,
    default: { host: '0.0.0.0', port: 10256 },
    accept: [
      ['192.0.2.1:99', { host: '192.0.2.1', port: 99 }],
      ['192.0.2.1', { host: '192.0.2.1', port: 10256 }],
      ['[::]:99', { host: '::', port: 99 }],
      ['::1', { host: '::1', port: 10256 }],
      ['', { host: '0.0.0.0', port: 10256 }],
      ['0', undefined],
    ],
    refuse: [
      ['localhost:1', /"localhost:1": must be IP:port, .*, but "localhost" is not an IP address$/],
      ['0.0.0.0:0', /but "0" is not a port from 1 to 65535$/],
      ['0.0.0.0:65536', /but "65536" is not a port/],
      ['192.0.2.1:', /but "" is not a port/],
      ['localhost:http', /but "localhost" is not an IP address and "http" is not a port from 1 to 65535$/],
      ['10256', /"10256": must be IP:port, such as 0\.0\.0\.0:10256 or \[::\]:10256$/],
    ],
  },
  metricsBindAddress: {
    of: ({ metricsBindAddress }) => metricsBindAddress,
    default: { host: '127.0.0.1', port: 10249 },
    accept: [
      ['0.0.0.0', { host: '0.0.0.0', port: 10249 }],
      ['[::1]:1', { host: '::1', port: 1 }],
      ['', { host: '127.0.0.1', port: 10249 }],
      ['0', undefined],
    ],
    refuse: [[':10249', /":10249": must be IP:port, .*, but "" is not an IP address$/]],
  },
  bindAddressHardFail: {
    of: ({ bindAddressHardFail }) => bindAddressHardFail,
    default: false,
    accept: [
      [true, true],
      [false, false],
    ],
    refuse: notBool,
  },
  enableProfiling: {
    of: ({ enableProfiling }) => enableProfiling,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
  },
  showHiddenMetricsForVersion: {
    of: ({ showHiddenMetricsForVersion }) => showHiddenMetricsForVersion,
    default: '',
    accept: [
      ['1.35', '1.35'],
      ['', ''],
    ],
    refuse: [
      ['1.34', /"1\.34": must be 1\.36, 1\.35, or empty to show none$/],
      [1.35, /1.35: must be text$/],
    ],
  },
  mode: {
    of: ({ mode }) => mode,
    default: '',
    accept: [
      ['', ''],
      ['nftables', 'nftables'],
      ['iptables', 'iptables'],
      ['ipvs', 'ipvs'],
    ],
    refuse: [
      ['magic', /"magic": must be nftables, iptables, ipvs, or empty for the automatic choice$/],
      ['IPVS', /"IPVS": must be nftables/],
      ['kernelspace', /"kernelspace": must be nftables/],
    ],
  },
  'iptables.masqueradeBit': {
    of: ({ masqueradeBit }) => masqueradeBit,
    default: 14,
    accept: [
      [0, 0],
      [31, 31],
    ],
    refuse: [...int32Refusals, [32, /32: must be from 0 to 31$/], [-1, /-1: must be from 0 to 31$/]],
  },
  'iptables.masqueradeAll': {
    of: ({ masqueradeAll }) => masqueradeAll,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
  },
  'iptables.localhostNodePorts': {
    of: ({ localhostNodePorts }) => localhostNodePorts,
    default: true,
    accept: [
      [true, true],
      [false, false],
    ],
    refuse: notBool,
  },
  'iptables.syncPeriod': {
    of: ({ syncPeriodMs }) => syncPeriodMs,
    default: 30 * s,
    accept: [
      ['1m', 60 * s],
      ['0s', 30 * s],
    ],
    refuse: [...durationRefusals, zeroPeriod],
  },
  'iptables.minSyncPeriod': {
    of: ({ minSyncPeriodMs }) => minSyncPeriodMs,
    default: 10,
    accept: [
      ['1s', s],
      ['1ns', 1e-6],
      ['0s', 10],
    ],
    refuse: [
      ...durationRefusals,
      negative,
      ['1m', /"1m0s": must not be greater than .*iptables\.syncPeriod \(30s\)$/],
    ],
  },
  'ipvs.syncPeriod': {
    of: ({ syncPeriodMs }) => syncPeriodMs,
    default: 30 * s,
    accept: [['1m30s', 90 * s]],
    refuse: [...durationRefusals, zeroPeriod],
    beside: ipvs,
  },
  'ipvs.minSyncPeriod': {
    of: ({ minSyncPeriodMs }) => minSyncPeriodMs,
    default: 10,
    accept: [
      ['5s', 5 * s],
      ['0s', 10],
    ],
    refuse: [negative, ['31s', /"31s": must not be greater than .*ipvs\.syncPeriod \(30s\)$/]],
    beside: ipvs,
  },
  'ipvs.scheduler': {
    of: (config) => config.ipvs.scheduler,
    default: '',
    accept: [['lc', 'lc']],
    refuse: [notText()],
    beside: ipvs,
  },
  'ipvs.excludeCIDRs': {
    of: (config) => config.ipvs.excludeCIDRs,
    default: [],
    accept: [
      [
        ['10.0.0.0/8', 'fd00::/8'],
        ['10.0.0.0/8', 'fd00::/8'],
      ],
    ],
    refuse: [
      [
        ['10.0.0.0/8', '10.0.0.0'],
        /ipvs\.excludeCIDRs\[1\]: "10\.0\.0\.0": must be a CIDR such as 192\.0\.2\.0\/24$/,
      ],
      ['10.0.0.0/8', /"10\.0\.0\.0\/8": must be a list of texts$/],
    ],
    beside: ipvs,
  },
  'ipvs.strictARP': {
    of: (config) => config.ipvs.strictARP,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
    beside: ipvs,
  },
  'ipvs.tcpTimeout': {
    of: (config) => config.ipvs.tcpTimeoutMs,
    default: 0,
    accept: [['15m', 900 * s]],
    refuse: [negative],
    beside: ipvs,
  },
  'ipvs.tcpFinTimeout': {
    of: (config) => config.ipvs.tcpFinTimeoutMs,
    default: 0,
    accept: [['2m', 120 * s]],
    refuse: [negative],
    beside: ipvs,
  },
  'ipvs.udpTimeout': {
    of: (config) => config.ipvs.udpTimeoutMs,
    default: 0,
    accept: [['300ms', 300]],
    refuse: [negative],
    beside: ipvs,
  },
  'nftables.masqueradeBit': {
    of: ({ masqueradeBit }) => masqueradeBit,
    default: 14,
    accept: [
      [0, 0],
      [31, 31],
    ],
    refuse: [...int32Refusals, [77, /77: must be from 0 to 31$/]],
    beside: nftables,
  },
  'nftables.masqueradeAll': {
    of: ({ masqueradeAll }) => masqueradeAll,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
    beside: nftables,
  },
  'nftables.syncPeriod': {
    of: ({ syncPeriodMs }) => syncPeriodMs,
    default: 30 * s,
    accept: [
      ['1h', h],
      ['0s', 30 * s],
    ],
    refuse: [...durationRefusals, zeroPeriod],
    beside: nftables,
  },
  'nftables.minSyncPeriod': {
    of: ({ minSyncPeriodMs }) => minSyncPeriodMs,
    default: 10,
    accept: [
      ['1s', s],
      ['0s', 10],
    ],
    refuse: [...durationRefusals, negative],
    beside: nftables,
  },
  'winkernel.networkName': ignoredText,
  'winkernel.sourceVip': ignoredText,
  'winkernel.enableDSR': ignoredSwitch,
  'winkernel.rootHnsEndpointName': ignoredText,
  'winkernel.forwardHealthCheckVip': ignoredSwitch,
  detectLocalMode: {
    of: ({ detectLocalMode }) => detectLocalMode,
    default: 'ClusterCIDR',
    accept: [
      ['NodeCIDR', 'NodeCIDR'],
      ['', 'ClusterCIDR'],
    ],
    refuse: [
      [
        'clustercidr',
        /"clustercidr": must be ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix, or empty for ClusterCIDR$/,
      ],
      ['BridgeInterface', /detectLocal\.bridgeInterface: "": must be set in local mode BridgeInterface$/],
      [
        'InterfaceNamePrefix',
        /detectLocal\.interfaceNamePrefix: "": must be set in local mode InterfaceNamePrefix$/,
      ],
    ],
  },
  'detectLocal.bridgeInterface': {
    of: ({ podBridgeInterface }) => podBridgeInterface,
    default: '',
    accept: [['cni0', 'cni0']],
    refuse: [notText()],
  },
  'detectLocal.interfaceNamePrefix': {
    of: ({ podInterfaceNamePrefix }) => podInterfaceNamePrefix,
    default: '',
    accept: [['veth', 'veth']],
    refuse: [notText()],
  },
  clusterCIDR: {
    of: ({ clusterCIDRs }) => clusterCIDRs,
    default: [],
    accept: [
      ['10.244.0.0/16', ['10.244.0.0/16']],
      ['fd00::/48,10.0.0.0/8', ['fd00::/48', '10.0.0.0/8']],
      ['', []],
    ],
    refuse: [
      ['10.0.0.0', /"10\.0\.0\.0": must be a CIDR such as 10\.244\.0\.0\/16, but "10\.0\.0\.0" is not$/],
      ['10.0.0.0/8, fd00::/48', /but " fd00::\/48" is not$/],
      ['10.0.0.0/33', /must be a CIDR/],
      [
        '10.0.0.0/8,172.16.0.0/12',
        /must be one CIDR, or one of each family such as 10\.244\.0\.0\/16,fd00:10:244::\/64$/,
      ],
      ['10.0.0.0/8,fd00::/48,172.16.0.0/12', /must be one CIDR, or one of each family/],
    ],
  },
  nodePortAddresses: {
    of: ({ nodePortAddresses }) => nodePortAddresses,
    default: [],
    accept: [
      [['primary'], ['primary']],
      [
        ['10.0.0.0/8', '::/0'],
        ['10.0.0.0/8', '::/0'],
      ],
      [
        ['primary', 'localhost', '10.0.0.0/8'],
        ['primary', 'localhost', '10.0.0.0/8'],
      ],
      [['all'], ['all']],
      [[], []],
    ],
    refuse: [
      [['primary', '10.0.0.0/8', 'primary'], /nodePortAddresses\[2\]: Duplicate value: "primary"$/],
      [
        ['x'],
        /nodePortAddresses\[0\]: Invalid value: "x": must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'$/,
      ],
    ],
  },
  oomScoreAdj: {
    of: ({ oomScoreAdj }) => oomScoreAdj,
    default: -999,
    accept: [
      [0, 0],
      [1000, 1000],
      [-1000, -1000],
    ],
    refuse: [
      ...int32Refusals,
      [1001, /1001: must be from -1000 to 1000$/],
      [-1001, /-1001: must be from -1000 to 1000$/],
    ],
  },
  'conntrack.maxPerCore': {
    of: ({ conntrack }) => conntrack.maxPerCore,
    default: 32768,
    accept: [
      [0, 0],
      [1, 1],
    ],
    refuse: [...int32Refusals, [-1, /-1: must not be negative$/]],
  },
  'conntrack.min': {
    of: ({ conntrack }) => conntrack.min,
    default: 131072,
    accept: [[0, 0]],
    refuse: [[-1, /-1: must not be negative$/]],
  },
  'conntrack.tcpEstablishedTimeout': {
    of: ({ conntrack }) => conntrack.tcpEstablishedTimeoutMs,
    default: 24 * h,
    accept: [
      ['0s', 0],
      ['5m', 300 * s],
    ],
    refuse: [...durationRefusals, negative],
  },
  'conntrack.tcpCloseWaitTimeout': {
    of: ({ conntrack }) => conntrack.tcpCloseWaitTimeoutMs,
    default: h,
    accept: [['0s', 0]],
    refuse: [negative],
  },
  'conntrack.tcpBeLiberal': {
    of: ({ conntrack }) => conntrack.tcpBeLiberal,
    default: false,
    accept: [[true, true]],
    refuse: notBool,
  },
  'conntrack.udpTimeout': {
    of: ({ conntrack }) => conntrack.udpTimeoutMs,
    default: 0,
    accept: [['30s', 30 * s]],
    refuse: [negative],
  },
  'conntrack.udpStreamTimeout': {
    of: ({ conntrack }) => conntrack.udpStreamTimeoutMs,
    default: 0,
    accept: [['2m0s', 120 * s]],
    refuse: [negative],
  },
  configSyncPeriod: {
    of: ({ configSyncPeriodMs }) => configSyncPeriodMs,
    default: 15 * 60 * s,
    accept: [
      ['1h', h],
      ['0s', 15 * 60 * s],
    ],
    refuse: [...durationRefusals, zeroPeriod],
  },
  portRange: { ...ignoredText, of: ({ fields }) => fields.portRange, default: '', accept: [['1-2', '']] },
  windowsRunAsService: ignoredSwitch,
};

/** What a command line can say that a document can't, or says otherwise. */
interface FlagRow {
  readonly of: (config: Config) => unknown;
  readonly default: unknown;
  readonly accept: readonly (readonly [text: string, meaning: unknown])[];
  readonly refuse: readonly (readonly [text: string, message: RegExp])[];
  readonly beside?: readonly string[];
}

const invalid = (name: string, value: string, reason: string): RegExp =>
  new RegExp(`^invalid argument "${value}" for "--${name}" flag: ${reason}`);
const { featureGates: gates } = fieldRows;
const alpha = ['--feature-gates=LoggingAlphaOptions=true'];
const noText: FlagRow['refuse'] = [];

/** @param texts as on the command line; what they mean */
const flagRow = (
  path: FieldPath,
  accept: FlagRow['accept'],
  refuse: FlagRow['refuse'],
  beside: readonly string[] = [],
): FlagRow => ({ of: fieldRows[path].of, default: fieldRows[path].default, accept, refuse, beside });
const switchRow = (path: FieldPath, name: string, beside: readonly string[] = []): FlagRow =>
  flagRow(
    path,
    [
      ['true', true],
      ['T', true],
      ['0', false],
    ],
    [['yes', invalid(name, 'yes', 'must be true or false')]],
    beside,
  );
const durationRow = (path: FieldPath, name: string, beside: readonly string[] = []): FlagRow =>
  flagRow(
    path,
    [
      ['25s', 25 * s],
      ['1500ms', 1500],
    ],
    [
      ['30', invalid(name, '30', 'must be a duration')],
      ['-5s', new RegExp(`^--${name}: "-5s": must (not be negative|be greater than 0)$`)],
    ],
    beside,
  );
const inIpvs = ['--proxy-mode=ipvs'];

const fieldFlagRows: { readonly [Name in FieldFlag]: FlagRow } = {
  'bind-address': flagRow(
    'bindAddress',
    [
      ['192.0.2.1', '192.0.2.1'],
      ['', '0.0.0.0'],
    ],
    [['1.2.3.4:5', /^--bind-address: "1\.2\.3\.4:5": must be an IP address, without a port$/]],
  ),
  'bind-address-hard-fail': switchRow('bindAddressHardFail', 'bind-address-hard-fail'),
  'cluster-cidr': flagRow(
    'clusterCIDR',
    [
      ['10.0.0.0/8,fd00::/48', ['10.0.0.0/8', 'fd00::/48']],
      ['', []],
    ],
    [['10.0.0.0', /^--cluster-cidr: "10\.0\.0\.0": must be a CIDR/]],
  ),
  'config-sync-period': flagRow(
    'configSyncPeriod',
    [['1m', 60 * s]],
    [['0', /^--config-sync-period: "0s": must be greater than 0$/]],
  ),
  'conntrack-max-per-core': flagRow(
    'conntrack.maxPerCore',
    [
      ['0', 0],
      ['0x10', 16],
      ['010', 8],
    ],
    [
      ['many', invalid('conntrack-max-per-core', 'many', 'must be a number from -2147483648')],
      ['-1', /^--conntrack-max-per-core: -1: must not be negative$/],
    ],
  ),
  'conntrack-min': flagRow('conntrack.min', [['1', 1]], [['-1', /^--conntrack-min: -1: must not/]]),
  'conntrack-tcp-be-liberal': switchRow('conntrack.tcpBeLiberal', 'conntrack-tcp-be-liberal'),
  'conntrack-tcp-timeout-close-wait': durationRow(
    'conntrack.tcpCloseWaitTimeout',
    'conntrack-tcp-timeout-close-wait',
  ),
  'conntrack-tcp-timeout-established': durationRow(
    'conntrack.tcpEstablishedTimeout',
    'conntrack-tcp-timeout-established',
  ),
  'conntrack-udp-timeout': durationRow('conntrack.udpTimeout', 'conntrack-udp-timeout'),
  'conntrack-udp-timeout-stream': durationRow('conntrack.udpStreamTimeout', 'conntrack-udp-timeout-stream'),
  'detect-local-mode': flagRow(
    'detectLocalMode',
    [
      ['NodeCIDR', 'NodeCIDR'],
      ['', 'ClusterCIDR'],
    ],
    [
      ['nodecidr', /^--detect-local-mode: "nodecidr": must be ClusterCIDR, NodeCIDR/],
      ['BridgeInterface', /^--pod-bridge-interface: "": must be set in local mode BridgeInterface$/],
      ['InterfaceNamePrefix', /^--pod-interface-name-prefix: "": must be set in local mode/],
    ],
  ),
  'feature-gates': flagRow(
    'featureGates',
    [
      ['AllowServiceExternalIPs=false,ClientsAllowCBOR=T', [false, true, true]],
      ['', gates.default],
    ],
    [
      ['A', invalid('feature-gates', 'A', '"A" must be of the form Name=true or Name=false')],
      ['A=maybe', invalid('feature-gates', 'A=maybe', '"A=maybe" must be of the form')],
      ['Magic=true', /^--feature-gates: "Magic=true": Magic is not a feature gate/],
    ],
  ),
  'healthz-bind-address': flagRow(
    'healthzBindAddress',
    [
      ['192.0.2.1', { host: '192.0.2.1', port: 10256 }],
      ['[::]:99', { host: '::', port: 99 }],
      ['', { host: '0.0.0.0', port: 10256 }],
      ['0', undefined],
    ],
    [['localhost:1', /^--healthz-bind-address: "localhost:1": must be IP:port/]],
  ),
  'hostname-override': flagRow(
    'hostnameOverride',
    [[' Alder ', 'alder']],
    [['  ', /^--hostname-override: " {2}": must not be blank$/]],
  ),
  'iptables-localhost-nodeports': switchRow('iptables.localhostNodePorts', 'iptables-localhost-nodeports'),
  'iptables-masquerade-bit': flagRow(
    'iptables.masqueradeBit',
    [
      ['0', 0],
      ['31', 31],
    ],
    [['32', /^--iptables-masquerade-bit: 32: must be from 0 to 31$/]],
  ),
  'iptables-min-sync-period': flagRow(
    'iptables.minSyncPeriod',
    [
      ['1s', s],
      ['0', 1e-6],
    ],
    [
      ['1m', /^--iptables-min-sync-period: "1m0s": must not be greater than --iptables-sync-period \(30s\)$/],
      ['-1s', /^--iptables-min-sync-period: "-1s": must not be negative$/],
    ],
  ),
  'iptables-sync-period': flagRow(
    'iptables.syncPeriod',
    [['1m', 60 * s]],
    [['0s', /^--iptables-sync-period: "0s": must be greater than 0$/]],
  ),
  'ipvs-exclude-cidrs': flagRow(
    'ipvs.excludeCIDRs',
    [['10.0.0.0/8,"fd00::/8"', ['10.0.0.0/8', 'fd00::/8']]],
    [['x', /^--ipvs-exclude-cidrs: "x": must be a CIDR/]],
    inIpvs,
  ),
  'ipvs-min-sync-period': durationRow('ipvs.minSyncPeriod', 'ipvs-min-sync-period', inIpvs),
  'ipvs-scheduler': flagRow('ipvs.scheduler', [['wrr', 'wrr']], noText, inIpvs),
  'ipvs-strict-arp': switchRow('ipvs.strictARP', 'ipvs-strict-arp', inIpvs),
  'ipvs-sync-period': durationRow('ipvs.syncPeriod', 'ipvs-sync-period', inIpvs),
  'ipvs-tcp-timeout': durationRow('ipvs.tcpTimeout', 'ipvs-tcp-timeout', inIpvs),
  'ipvs-tcpfin-timeout': durationRow('ipvs.tcpFinTimeout', 'ipvs-tcpfin-timeout', inIpvs),
  'ipvs-udp-timeout': durationRow('ipvs.udpTimeout', 'ipvs-udp-timeout', inIpvs),
  'kube-api-burst': flagRow(
    'clientConnection.burst',
    [
      ['20', 20],
      ['0', 10],
    ],
    [['-1', /^--kube-api-burst: -1: must not be negative$/]],
  ),
  'kube-api-content-type': flagRow(
    'clientConnection.contentType',
    [['application/json', 'json']],
    [['text/plain', /^--kube-api-content-type: "text\/plain": must be application\/vnd/]],
  ),
  'kube-api-qps': flagRow(
    'clientConnection.qps',
    [
      ['0.5', 0.5],
      ['-1', -1],
    ],
    [['fast', invalid('kube-api-qps', 'fast', 'must be a number$')]],
  ),
  kubeconfig: flagRow('clientConnection.kubeconfig', [['/k', '/k']], noText),
  'log-flush-frequency': durationRow('logging.flushFrequency', 'log-flush-frequency'),
  'log-json-info-buffer-size': flagRow(
    'logging.options.json.infoBufferSize',
    [['1Ki', 1024]],
    [['x', invalid('log-json-info-buffer-size', 'x', 'must be a number of bytes')]],
    [...alpha, '--logging-format=json'],
  ),
  'log-json-split-stream': switchRow('logging.options.json.splitStream', 'log-json-split-stream', [
    ...alpha,
    '--logging-format=json',
  ]),
  'log-text-info-buffer-size': flagRow(
    'logging.options.text.infoBufferSize',
    [
      ['512', 512],
      ['3M', 3_000_000],
    ],
    [['x', invalid('log-text-info-buffer-size', 'x', 'must be a number of bytes')]],
    alpha,
  ),
  'log-text-split-stream': switchRow('logging.options.text.splitStream', 'log-text-split-stream', alpha),
  'logging-format': flagRow(
    'logging.format',
    [['json', 'json']],
    [['xml', /^--logging-format: "xml": must be text or json$/]],
  ),
  'masquerade-all': switchRow('iptables.masqueradeAll', 'masquerade-all'),
  'metrics-bind-address': flagRow(
    'metricsBindAddress',
    [
      ['0.0.0.0', { host: '0.0.0.0', port: 10249 }],
      ['0', undefined],
    ],
    [['192.0.2.1:', /^--metrics-bind-address: "192\.0\.2\.1:": must be IP:port/]],
  ),
  'nodeport-addresses': flagRow(
    'nodePortAddresses',
    [
      ['primary', ['primary']],
      ['10.0.0.0/8,::/0', ['10.0.0.0/8', '::/0']],
      ['', []],
    ],
    [
      ['all,10.0.0.0/8,all', /^--nodeport-addresses: Duplicate value: "all"$/],
      ['10.0.0.1', /^--nodeport-addresses: Invalid value: "10\.0\.0\.1": must be a valid CIDR or one of/],
      ['"', invalid('nodeport-addresses', '\\\\"', 'must be a comma-separated list')],
    ],
  ),
  'oom-score-adj': flagRow(
    'oomScoreAdj',
    [['-1000', -1000]],
    [['1001', /^--oom-score-adj: 1001: must be from -1000 to 1000$/]],
  ),
  'pod-bridge-interface': flagRow('detectLocal.bridgeInterface', [['cni0', 'cni0']], noText),
  'pod-interface-name-prefix': flagRow('detectLocal.interfaceNamePrefix', [['veth', 'veth']], noText),
  profiling: switchRow('enableProfiling', 'profiling'),
  'proxy-mode': flagRow(
    'mode',
    [
      ['nftables', 'nftables'],
      ['', ''],
    ],
    [['magic', /^--proxy-mode: "magic": must be nftables, iptables, ipvs, or empty/]],
  ),
  'show-hidden-metrics-for-version': flagRow(
    'showHiddenMetricsForVersion',
    [
      ['1.36', '1.36'],
      ['1.35', '1.35'],
    ],
    [['1.37', /^--show-hidden-metrics-for-version: "1\.37": must be 1\.36, 1\.35, or empty/]],
  ),
  v: flagRow(
    'logging.verbosity',
    [
      ['4', 4],
      ['2147483647', 2147483647],
    ],
    [
      ['many', invalid('v', 'many', 'must be a number from 0 to 2147483647$')],
      ['-1', invalid('v', '-1', 'must be a number')],
    ],
  ),
  vmodule: flagRow(
    'logging.vmodule',
    [
      [
        'sync*=5,model=2',
        [
          { filePattern: 'sync*', verbosity: 5 },
          { filePattern: 'model', verbosity: 2 },
        ],
      ],
    ],
    [
      ['sync', invalid('vmodule', 'sync', '"sync" does not have the pattern=N format$')],
      ['=1', /^--vmodule: "": filePattern must not be empty$/],
    ],
  ),
};

const controlRows: { readonly [Name in ControlFlag]: FlagRow } = {
  'boot-id-file': { of: () => undefined, default: undefined, accept: [['/x', undefined]], refuse: [] },
  cleanup: {
    of: ({ cleanup }) => cleanup,
    default: false,
    accept: [['true', true]],
    refuse: [['yes', invalid('cleanup', 'yes', 'must be true or false')]],
  },
  config: {
    of: ({ configFile }) => configFile,
    default: '',
    accept: [['', '']],
    refuse: [['/nonexistent', /^--config: cannot read \/nonexistent: ENOENT/]],
  },
  'healthz-port': {
    of: ({ healthzBindAddress }) => healthzBindAddress,
    default: { host: '0.0.0.0', port: 10256 },
    accept: [
      ['0', undefined],
      ['9999', { host: '0.0.0.0', port: 10256 }],
    ],
    refuse: [
      ['x', invalid('healthz-port', 'x', 'must be a number')],
      ['0x1ffffffff', invalid('healthz-port', '0x1ffffffff', 'must be a number')],
    ],
  },
  help: { of: () => undefined, default: undefined, accept: [['false', undefined]], refuse: [] },
  'init-only': { of: ({ initOnly }) => initOnly, default: false, accept: [['1', true]], refuse: [] },
  'machine-id-file': { of: () => undefined, default: undefined, accept: [['/x', undefined]], refuse: [] },
  manifests: { of: ({ manifests }) => manifests, default: '', accept: [['/m', '/m']], refuse: [] },
  master: { of: ({ client }) => client.master, default: '', accept: [['http://x', 'http://x']], refuse: [] },
  'metrics-port': {
    of: ({ metricsBindAddress }) => metricsBindAddress,
    default: { host: '127.0.0.1', port: 10249 },
    accept: [
      ['0', undefined],
      ['9999', { host: '127.0.0.1', port: 10249 }],
    ],
    refuse: [['x', invalid('metrics-port', 'x', 'must be a number')]],
  },
  'first-services': {
    of: ({ firstServices }) => firstServices,
    default: ['default/kubernetes', 'kube-system/kube-dns'],
    accept: [['a/b,c/d', ['a/b', 'c/d']]],
    refuse: [['a/b,c', /^--first-services: .*must name Services, each as namespace\/name$/]],
  },
  'full-check-period': {
    of: ({ fullCheckPeriodMs }) => fullCheckPeriodMs,
    default: 3600 * s,
    accept: [
      ['0s', 0],
      ['10m', 600 * s],
    ],
    refuse: [['-1s', /^--full-check-period: "-1s": must not be negative$/]],
  },
  'startup-timeout': {
    of: ({ startupTimeoutMs }) => startupTimeoutMs,
    default: 30 * s,
    accept: [
      ['0s', 0],
      ['5s', 5 * s],
    ],
    refuse: [
      ['30', invalid('startup-timeout', '30', 'must be a duration')],
      ['-1s', /^--startup-timeout: "-1s": must not be negative$/],
    ],
  },
  'state-file': { of: ({ stateFile }) => stateFile, default: '', accept: [['/s', '/s']], refuse: [] },
  'strict-config': {
    of: ({ strictConfig }) => strictConfig,
    default: false,
    accept: [['t', true]],
    refuse: [],
  },
  version: {
    of: ({ kubernetesVersion }) => kubernetesVersion,
    default: 'v1.37.2',
    accept: [
      ['false', 'v1.37.2'],
      ['v1.37.2-eks-1', 'v1.37.2-eks-1'],
      ['v1.37.2+k3s1', 'v1.37.2+k3s1'],
    ],
    refuse: [
      [
        'v1.37.3',
        invalid('version', 'v1\\.37\\.3', 'must be true, false, raw, or v1\\.37\\.2 with a suffix'),
      ],
      ['1.37.2', invalid('version', '1\\.37\\.2', 'must be')],
    ],
  },
  'write-config-to': {
    of: ({ writeConfigTo }) => writeConfigTo,
    default: '',
    accept: [['/w', '/w']],
    refuse: [],
  },
};

const flagRows: Readonly<Record<string, FlagRow>> = { ...fieldFlagRows, ...controlRows };

describe('fields', () => {
  for (const path of fieldPaths) {
    const { of, default: initial, accept, refuse, beside = {} } = fieldRows[path];
    test(`${path} is ${JSON.stringify(initial)} when it is absent or null`, () => {
      assert.deepEqual(of(fromFields(beside)), initial);
      assert.deepEqual(of(fromFields({ ...beside, [path]: null })), initial);
      assert.deepEqual(fromFields({ ...beside, [path]: null }).warnings, []);
    });
    for (const [value, meaning] of accept) {
      test(`${path}: ${JSON.stringify(value)}`, () => {
        assert.deepEqual(of(fromFields({ ...beside, [path]: value })), meaning);
        const json = JSON.stringify(documentOf({ ...beside, [path]: value }), undefined, '\t');
        assert.deepEqual(of(fromText(json)), meaning, 'as JSON');
      });
    }
    for (const [value, message] of refuse) {
      test(`${path}: ${JSON.stringify(value)} is refused`, () => {
        const problems = problemsOf(() => fromFields({ ...beside, [path]: value }));
        const found = problems.find((problem) => message.test(problem));
        assert.ok(found, `${String(message)} in ${JSON.stringify(problems)}`);
        assert.ok(found.startsWith(`${fileName}:`), 'names the file');
      });
    }
    test(`${path} is explained`, () => {
      assert.match(fieldOf(path).help, /^[A-Z-].*\.$/);
    });
  }
});

describe('flags', () => {
  test('every flag has a row', () => {
    assert.deepEqual([...flags.keys()], Object.keys(flagRows).sort());
  });
  for (const [name, { of, default: initial, accept, refuse, beside = [] }] of Object.entries(flagRows)) {
    test(`--${name} is ${JSON.stringify(initial)} when it is not given`, () => {
      assert.deepEqual(of(fromFlags(...beside)), initial);
    });
    for (const [value, meaning] of accept) {
      test(`--${name}=${value}`, () => {
        const config = fromFlags(...beside, `--${name}=${value}`);
        assert.deepEqual(of(config), meaning);
        assert.ok(name in config.flags, 'in /flagz');
      });
    }
    for (const [value, message] of refuse) {
      test(`--${name}=${value} is refused`, () => {
        const problems = problemsOf(() => fromFlags(...beside, `--${name}=${value}`));
        assert.equal(problems.filter((problem) => message.test(problem)).length, 1, problems.join('\n'));
      });
    }
  }
  test('controls are explained', () => {
    for (const { help } of Object.values(controlFlags)) assert.match(help, /^[A-Z].*\.$/);
  });
});
