/**
 * The settings in force: flags, or a KubeProxyConfiguration file, checked and with defaults filled in.
 * Field names and defaults follow upstream's v1alpha1 configuration.
 */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { parseCidr } from '../model/addresses.js';
import { DETECT_LOCAL_MODES, isDetectLocalMode, type DetectLocalMode } from '../model/detector.js';
import { ConfigError } from './errors.js';
import { featureGates, type FeatureGates } from './feature-gates.js';
import { parseDuration, type FlagValues } from './flags.js';

export type ProxyMode = 'nftables' | 'iptables' | 'ipvs';

/** An address and port to listen on. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** How the API server is talked to. */
export interface ClientConfig {
  /** Path; empty: the pod's service account, unless there is `master`. */
  readonly kubeconfig: string;
  /** URL that overrides the kubeconfig's; only a flag. */
  readonly master: string;
  readonly contentType: 'protobuf' | 'json';
  /** The Accept header; empty: what follows from `contentType`. */
  readonly acceptContentTypes: string;
  /** Requests per second in the long run; negative: no limit. */
  readonly qps: number;
  /** Requests that may be sent at once. */
  readonly burst: number;
}

export interface VmoduleItem {
  /** Name of a source file without its ending, or of a logger; `*` and `?` as in file names. */
  readonly filePattern: string;
  readonly verbosity: number;
}

export interface LoggingConfig {
  readonly format: 'text' | 'json';
  readonly verbosity: number;
  /** Verbosity by source file. */
  readonly vmodule: readonly VmoduleItem[];
  /** How long lines may stay in the buffer. */
  readonly flushFrequencyMs: number;
  /** Information to standard output, errors to standard error, instead of all to standard error. */
  readonly splitStream: boolean;
  /** Bytes of information lines that may be held back, with `splitStream`; 0: every line is written at once. */
  readonly infoBufferBytes: number;
}

/** Connection tracking settings of the kernel; 0 leaves the kernel's own value alone. */
export interface ConntrackConfig {
  /** Limit of connections per processor core; 0: the limit is left alone and `min` does not count. */
  readonly maxPerCore: number;
  readonly min: number;
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
}

/** Settings of mode ipvs; a timeout of 0 leaves the kernel's own value alone. */
export interface IpvsConfig {
  /** Empty: rr. */
  readonly scheduler: string;
  /** Virtual servers of others, which a cleaning leaves alone. */
  readonly excludeCIDRs: readonly string[];
  readonly strictARP: boolean;
  readonly tcpTimeoutMs: number;
  readonly tcpFinTimeoutMs: number;
  readonly udpTimeoutMs: number;
}

/** The settings in force. Plain data: two of them can be compared member by member. */
export interface Config {
  /** Path of --config; empty: flags only. */
  readonly configFile: string;
  /** Unknown and duplicate fields are errors. */
  readonly strictConfig: boolean;
  /** Write the effective configuration to this path and exit; empty: go on. */
  readonly writeConfigTo: string;
  /** Remove everything of ours from the kernel and exit. */
  readonly cleanup: boolean;
  /** Do what needs privileges, then exit. */
  readonly initOnly: boolean;
  /** Where the last known state of the cluster is kept; empty: nowhere. */
  readonly stateFile: string;
  /** File or folder that is served instead of an API server; empty: none. */
  readonly manifests: string;
  /** How long the API server is waited for at the start; 0: for ever. */
  readonly startupTimeoutMs: number;

  readonly nodeName: string;
  /** Empty: automatic, the best mode that the kernel has, with the settings of mode iptables. */
  readonly mode: '' | ProxyMode;
  readonly client: ClientConfig;
  readonly logging: LoggingConfig;
  /** Every gate, as it is in force. */
  readonly gates: FeatureGates;

  readonly clusterCIDRs: readonly string[];
  readonly detectLocalMode: DetectLocalMode;
  readonly podBridgeInterface: string;
  readonly podInterfaceNamePrefix: string;

  /** Of the chosen mode; those of mode iptables while the mode is automatic. */
  readonly masqueradeAll: boolean;
  readonly masqueradeBit: number;
  readonly syncPeriodMs: number;
  readonly minSyncPeriodMs: number;
  /** Node ports on loopback addresses. undefined: not set, and mode nftables was asked for, whose default is no. */
  readonly localhostNodePorts: boolean | undefined;
  /** `['primary']` or CIDRs; empty: all addresses of the node. */
  readonly nodePortAddresses: readonly string[];
  readonly ipvs: IpvsConfig;
  readonly conntrack: ConntrackConfig;
  /** -1000 to 1000 */
  readonly oomScoreAdj: number;
  /** How often the API server's objects are gone through again without a change. */
  readonly configSyncPeriodMs: number;

  readonly bindAddress: string;
  /** undefined: no server. */
  readonly healthzBindAddress: HostPort | undefined;
  readonly metricsBindAddress: HostPort | undefined;
  readonly bindAddressHardFail: boolean;
  readonly enableProfiling: boolean;
  /** Version whose hidden metrics are shown, `1.35`; empty: none. */
  readonly showHiddenMetricsForVersion: string;

  /** Things worth a warning that do not stop the program. */
  readonly warnings: readonly string[];
}

const duration = z.string().refine((text) => parseDuration(text) !== undefined, {
  message: 'must be a duration such as 300ms, 5s or 1m30s',
});

/** The fields that act. */
const fileSchema = z.object({
  apiVersion: z.literal('kubeproxy.config.k8s.io/v1alpha1'),
  kind: z.literal('KubeProxyConfiguration'),
  featureGates: z.record(z.string(), z.boolean()).nullish(),
  clientConnection: z
    .looseObject({ kubeconfig: z.string().nullish(), contentType: z.string().nullish() })
    .nullish(),
  logging: z.looseObject({ format: z.string().nullish(), verbosity: z.int().min(0).nullish() }).nullish(),
  hostnameOverride: z.string().nullish(),
  bindAddress: z.string().nullish(),
  healthzBindAddress: z.string().nullish(),
  metricsBindAddress: z.string().nullish(),
  bindAddressHardFail: z.boolean().nullish(),
  mode: z.string().nullish(),
  iptables: z.looseObject({ masqueradeAll: z.boolean().nullish() }).nullish(),
  nftables: z
    .looseObject({
      masqueradeBit: z.int().min(0).max(31).nullish(),
      masqueradeAll: z.boolean().nullish(),
      syncPeriod: duration.nullish(),
      minSyncPeriod: duration.nullish(),
    })
    .nullish(),
  detectLocalMode: z.string().nullish(),
  detectLocal: z
    .looseObject({ bridgeInterface: z.string().nullish(), interfaceNamePrefix: z.string().nullish() })
    .nullish(),
  clusterCIDR: z.string().nullish(),
  nodePortAddresses: z.array(z.string()).nullish(),
});

/** All fields of v1alpha1 (config.md section 5), sections with their own; this version reads past those not in the schema. */
const knownFields: Readonly<Record<string, readonly string[] | true>> = {
  apiVersion: true,
  kind: true,
  featureGates: true,
  clientConnection: ['kubeconfig', 'acceptContentTypes', 'contentType', 'qps', 'burst'],
  logging: ['format', 'flushFrequency', 'verbosity', 'vmodule', 'options'],
  hostnameOverride: true,
  bindAddress: true,
  healthzBindAddress: true,
  metricsBindAddress: true,
  bindAddressHardFail: true,
  enableProfiling: true,
  showHiddenMetricsForVersion: true,
  mode: true,
  iptables: ['masqueradeBit', 'masqueradeAll', 'localhostNodePorts', 'syncPeriod', 'minSyncPeriod'],
  ipvs: [
    'syncPeriod',
    'minSyncPeriod',
    'scheduler',
    'excludeCIDRs',
    'strictARP',
    'tcpTimeout',
    'tcpFinTimeout',
    'udpTimeout',
  ],
  nftables: ['masqueradeBit', 'masqueradeAll', 'syncPeriod', 'minSyncPeriod'],
  winkernel: ['networkName', 'sourceVip', 'rootHnsEndpointName', 'enableDSR', 'forwardHealthCheckVip'],
  detectLocalMode: true,
  detectLocal: ['bridgeInterface', 'interfaceNamePrefix'],
  clusterCIDR: true,
  nodePortAddresses: true,
  oomScoreAdj: true,
  conntrack: [
    'maxPerCore',
    'min',
    'tcpEstablishedTimeout',
    'tcpCloseWaitTimeout',
    'tcpBeLiberal',
    'udpTimeout',
    'udpStreamTimeout',
  ],
  configSyncPeriod: true,
  portRange: true,
  windowsRunAsService: true,
};

/** Paths of fields that v1alpha1 does not have: misspelt, most likely. */
function unknownFields(data: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(data).flatMap(([name, value]) => {
    const known = Object.hasOwn(knownFields, name) ? knownFields[name] : undefined;
    if (known === undefined) return [name];
    if (known === true || typeof value !== 'object' || value === null) return [];
    return Object.keys(value)
      .filter((field) => !known.includes(field))
      .map((field) => `${name}.${field}`);
  });
}

/** Raw settings, as text, before they are checked; both sources are brought into this one form. */
interface Raw {
  hostnameOverride: string;
  mode: string;
  kubeconfig: string;
  contentType: string;
  clusterCIDR: readonly string[];
  detectLocalMode: string;
  podBridgeInterface: string;
  podInterfaceNamePrefix: string;
  masqueradeAll: boolean;
  masqueradeBit: number;
  nodePortAddresses: readonly string[];
  bindAddress: string;
  healthzBindAddress: string;
  metricsBindAddress: string;
  bindAddressHardFail: boolean;
  verbosity: number;
  loggingFormat: string;
  featureGates: Readonly<Record<string, boolean>>;
  syncPeriod: string;
  minSyncPeriod: string;
}

/** How a message names a setting: as the flag or as the field that the user wrote. */
type Naming = (flag: string, field: string) => string;

/**
 * @throws ConfigError naming every wrong setting at once.
 */
export function loadConfig(values: FlagValues): Config {
  const text = (name: string, fallback = ''): string => {
    const value = values.get(name);
    return typeof value === 'string' ? value : fallback;
  };
  const list = (name: string): readonly string[] => {
    const value = values.get(name);
    return typeof value === 'object' ? value : [];
  };
  const warnings: string[] = [];
  const file = text('config');
  const naming: Naming = (flag, field) => (file === '' ? `--${flag}` : field);
  let raw: Raw;
  if (file === '') {
    raw = {
      hostnameOverride: text('hostname-override'),
      mode: text('proxy-mode'),
      kubeconfig: text('kubeconfig'),
      contentType: text('kube-api-content-type'),
      clusterCIDR: list('cluster-cidr'),
      detectLocalMode: text('detect-local-mode'),
      podBridgeInterface: text('pod-bridge-interface'),
      podInterfaceNamePrefix: text('pod-interface-name-prefix'),
      masqueradeAll: text('masquerade-all') === 'true',
      masqueradeBit: 14,
      nodePortAddresses: list('nodeport-addresses'),
      bindAddress: text('bind-address', '0.0.0.0'),
      healthzBindAddress: text('healthz-bind-address') || '0.0.0.0:10256',
      metricsBindAddress: text('metrics-bind-address') || '127.0.0.1:10249',
      bindAddressHardFail: text('bind-address-hard-fail') === 'true',
      verbosity: Number(text('v', '0')),
      loggingFormat: text('logging-format', 'text'),
      featureGates: gatesOf(list('feature-gates')),
      syncPeriod: text('iptables-sync-period', '30s'),
      minSyncPeriod: text('iptables-min-sync-period', '10ms'),
    };
  } else {
    raw = readFile(file, warnings);
    const honoured = new Set(
      'config cleanup hostname-override manifests master v logging-format startup-timeout help version'.split(
        ' ',
      ),
    );
    const ignored = [...values.keys()].filter((name) => !honoured.has(name));
    if (ignored.length > 0) {
      warnings.push(
        `--config replaces the settings made by flags: ${ignored.map((n) => `--${n}`).join(', ')} ignored`,
      );
    }
    if (values.has('hostname-override')) raw.hostnameOverride = text('hostname-override');
    if (values.has('v')) raw.verbosity = Number(text('v'));
    if (values.has('logging-format')) raw.loggingFormat = text('logging-format');
  }
  return check(raw, naming, warnings, {
    configFile: file,
    master: text('master'),
    manifests: text('manifests'),
    cleanup: text('cleanup') === 'true',
    startupTimeoutMs: parseDuration(text('startup-timeout', '30s')) ?? 30_000,
  });
}

function gatesOf(pairs: readonly string[]): Record<string, boolean> {
  const gates: Record<string, boolean> = {};
  for (const pair of pairs) {
    const match = /^([^=]+)=(true|false)$/i.exec(pair.trim());
    if (match === null)
      throw new ConfigError([`--feature-gates: ${JSON.stringify(pair)} is not name=true or name=false`]);
    gates[match[1] ?? ''] = match[2]?.toLowerCase() === 'true';
  }
  return gates;
}

function readFile(path: string, warnings: string[]): Raw {
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([
      `--config: cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`,
    ]);
  }
  const lines = new LineCounter();
  const document = parseDocument(content, { lineCounter: lines });
  const syntax = document.errors[0];
  if (syntax !== undefined) {
    const { line, col } = lines.linePos(syntax.pos[0]);
    throw new ConfigError([`${path}:${line}:${col}: ${syntax.message.split('\n')[0] ?? 'not YAML'}`]);
  }
  const plain: unknown = document.toJS();
  const parsed = fileSchema.loose().safeParse(plain);
  if (!parsed.success) {
    throw new ConfigError(
      parsed.error.issues.map((issue) => `${path}: ${issue.path.join('.') || 'document'}: ${issue.message}`),
    );
  }
  const data = parsed.data;
  for (const field of unknownFields(data).sort()) {
    warnings.push(`${path}: unknown field ${JSON.stringify(field)} ignored`);
  }
  const v6 = isIP(data.bindAddress ?? '') === 6;
  return {
    hostnameOverride: data.hostnameOverride ?? '',
    mode: data.mode ?? '',
    kubeconfig: data.clientConnection?.kubeconfig ?? '',
    contentType: data.clientConnection?.contentType ?? '',
    clusterCIDR: (data.clusterCIDR ?? '').split(',').filter((cidr) => cidr !== ''),
    detectLocalMode: data.detectLocalMode ?? '',
    podBridgeInterface: data.detectLocal?.bridgeInterface ?? '',
    podInterfaceNamePrefix: data.detectLocal?.interfaceNamePrefix ?? '',
    masqueradeAll: data.nftables?.masqueradeAll ?? data.iptables?.masqueradeAll ?? false,
    masqueradeBit: data.nftables?.masqueradeBit ?? 14,
    nodePortAddresses: data.nodePortAddresses ?? [],
    bindAddress: (data.bindAddress ?? '') || '0.0.0.0',
    healthzBindAddress: (data.healthzBindAddress ?? '') || (v6 ? '[::]:10256' : '0.0.0.0:10256'),
    metricsBindAddress: (data.metricsBindAddress ?? '') || (v6 ? '[::1]:10249' : '127.0.0.1:10249'),
    bindAddressHardFail: data.bindAddressHardFail ?? false,
    verbosity: data.logging?.verbosity ?? 0,
    loggingFormat: (data.logging?.format ?? '') || 'text',
    featureGates: data.featureGates ?? {},
    syncPeriod: nonZero(data.nftables?.syncPeriod) ?? '30s',
    minSyncPeriod: nonZero(data.nftables?.minSyncPeriod) ?? '10ms',
  };
}

/** kubeadm writes `0s` for "the default". */
function nonZero(text: string | null | undefined): string | undefined {
  return text === null || text === undefined || (parseDuration(text) ?? 0) === 0 ? undefined : text;
}

const knownGates = new Set(['AllowServiceExternalIPs']);

const modes: readonly Config['mode'][] = ['', 'nftables', 'iptables', 'ipvs'];

function check(
  raw: Raw,
  name: Naming,
  warnings: string[],
  rest: Pick<Config, 'configFile' | 'manifests' | 'cleanup' | 'startupTimeoutMs'> & {
    readonly master: string;
  },
): Config {
  const problems: string[] = [];
  const bad = (flag: string, field: string, value: string, allowed: string): void => {
    problems.push(`${name(flag, field)}: ${JSON.stringify(value)}: ${allowed}`);
  };

  const mode = modes.find((known) => known === raw.mode);
  if (mode === undefined) {
    bad(
      'proxy-mode',
      'mode',
      raw.mode,
      'must be nftables, iptables, ipvs, or empty for the automatic choice',
    );
  }

  const modeText = raw.detectLocalMode || 'ClusterCIDR';
  const detectLocalMode = isDetectLocalMode(modeText) ? modeText : undefined;
  if (detectLocalMode === undefined) {
    bad('detect-local-mode', 'detectLocalMode', modeText, `must be one of ${DETECT_LOCAL_MODES.join(', ')}`);
  }
  if (detectLocalMode === 'BridgeInterface' && raw.podBridgeInterface === '') {
    bad(
      'pod-bridge-interface',
      'detectLocal.bridgeInterface',
      '',
      'must name the bridge in mode BridgeInterface',
    );
  }
  if (detectLocalMode === 'InterfaceNamePrefix' && raw.podInterfaceNamePrefix === '') {
    const flag = 'pod-interface-name-prefix';
    bad(flag, 'detectLocal.interfaceNamePrefix', '', 'must be set in mode InterfaceNamePrefix');
  }
  for (const cidr of raw.clusterCIDR) {
    if (parseCidr(cidr) === undefined)
      bad('cluster-cidr', 'clusterCIDR', cidr, 'must be a CIDR such as 10.244.0.0/16');
  }
  const primary = raw.nodePortAddresses.includes('primary');
  if (primary && raw.nodePortAddresses.length > 1) {
    const value = raw.nodePortAddresses.join(',');
    bad('nodeport-addresses', 'nodePortAddresses', value, "'primary' stands alone or not at all");
  }
  for (const cidr of primary ? [] : raw.nodePortAddresses) {
    if (parseCidr(cidr) === undefined)
      bad('nodeport-addresses', 'nodePortAddresses', cidr, "must be a CIDR or 'primary'");
  }
  if (isIP(raw.bindAddress) === 0)
    bad('bind-address', 'bindAddress', raw.bindAddress, 'must be an IP address');
  const healthz = hostPort(raw.healthzBindAddress, 10256);
  if (healthz === undefined) {
    bad(
      'healthz-bind-address',
      'healthzBindAddress',
      raw.healthzBindAddress,
      'must be IP:port, port 1..65535',
    );
  }
  const metrics = hostPort(raw.metricsBindAddress, 10249);
  if (metrics === undefined) {
    bad(
      'metrics-bind-address',
      'metricsBindAddress',
      raw.metricsBindAddress,
      'must be IP:port, port 1..65535',
    );
  }
  const syncPeriodMs = parseDuration(raw.syncPeriod) ?? 30_000;
  const minSyncPeriodMs = parseDuration(raw.minSyncPeriod) ?? 10;
  const most = `${name('iptables-sync-period', 'nftables.syncPeriod')} (${raw.syncPeriod})`;
  if (syncPeriodMs <= 0)
    bad('iptables-sync-period', 'nftables.syncPeriod', raw.syncPeriod, 'must be greater than 0');
  else if (minSyncPeriodMs > syncPeriodMs) {
    const wrong = `must not be greater than ${most}`;
    bad('iptables-min-sync-period', 'nftables.minSyncPeriod', raw.minSyncPeriod, wrong);
  }
  const contentTypes: Readonly<Record<string, 'protobuf' | 'json'>> = {
    '': 'protobuf',
    'application/vnd.kubernetes.protobuf': 'protobuf',
    'application/json': 'json',
  };
  const contentType = contentTypes[raw.contentType];
  if (contentType === undefined) {
    const allowed = 'must be application/vnd.kubernetes.protobuf or application/json';
    bad('kube-api-content-type', 'clientConnection.contentType', raw.contentType, allowed);
  }
  if (raw.loggingFormat !== 'text' && raw.loggingFormat !== 'json') {
    bad('logging-format', 'logging.format', raw.loggingFormat, 'must be text or json');
  }
  const nodeName = (raw.hostnameOverride === '' ? hostname() : raw.hostnameOverride).trim().toLowerCase();
  if (nodeName === '')
    bad('hostname-override', 'hostnameOverride', raw.hostnameOverride, 'must not be blank');
  for (const gate of Object.keys(raw.featureGates)) {
    if (!knownGates.has(gate))
      warnings.push(`feature gate ${gate} is not known to this version and has no effect`);
  }
  if (problems.length > 0) throw new ConfigError(problems);

  const gates = Object.fromEntries([...featureGates].map(([gate, { default: initial }]) => [gate, initial]));
  const { master, ...start } = rest;
  return {
    ...start,
    strictConfig: false,
    writeConfigTo: '',
    initOnly: false,
    stateFile: '',
    nodeName,
    mode: mode ?? '',
    client: {
      kubeconfig: raw.kubeconfig,
      master,
      contentType: contentType ?? 'protobuf',
      acceptContentTypes: '',
      qps: 5,
      burst: 10,
    },
    logging: {
      format: raw.loggingFormat === 'json' ? 'json' : 'text',
      verbosity: raw.verbosity,
      vmodule: [],
      flushFrequencyMs: 5000,
      splitStream: false,
      infoBufferBytes: 0,
    },
    gates: { ...gates, ...raw.featureGates } as FeatureGates,
    clusterCIDRs: raw.clusterCIDR,
    detectLocalMode: detectLocalMode ?? 'ClusterCIDR',
    podBridgeInterface: raw.podBridgeInterface,
    podInterfaceNamePrefix: raw.podInterfaceNamePrefix,
    masqueradeAll: raw.masqueradeAll,
    masqueradeBit: raw.masqueradeBit,
    syncPeriodMs,
    minSyncPeriodMs,
    localhostNodePorts: mode === 'nftables' ? undefined : true,
    nodePortAddresses:
      mode === 'nftables' && raw.nodePortAddresses.length === 0 ? ['primary'] : raw.nodePortAddresses,
    ipvs: {
      scheduler: '',
      excludeCIDRs: [],
      strictARP: false,
      tcpTimeoutMs: 0,
      tcpFinTimeoutMs: 0,
      udpTimeoutMs: 0,
    },
    conntrack: {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeoutMs: 24 * 3600_000,
      tcpCloseWaitTimeoutMs: 3600_000,
      tcpBeLiberal: false,
      udpTimeoutMs: 0,
      udpStreamTimeoutMs: 0,
    },
    oomScoreAdj: -999,
    configSyncPeriodMs: 15 * 60_000,
    bindAddress: raw.bindAddress,
    healthzBindAddress: healthz,
    metricsBindAddress: metrics,
    bindAddressHardFail: raw.bindAddressHardFail,
    enableProfiling: false,
    showHiddenMetricsForVersion: '',
    warnings,
  };
}

/** `IP`, `IP:port`, `[IPv6]:port`. */
function hostPort(text: string, defaultPort: number): HostPort | undefined {
  if (isIP(text) !== 0) return { host: text, port: defaultPort };
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3] ?? 0);
  return isIP(host) === 0 || port < 1 || port > 65535 ? undefined : { host, port };
}
