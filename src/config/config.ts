/**
 * The settings in force: flags, or a KubeProxyConfiguration file, checked and with defaults filled in.
 * Field names and defaults follow upstream's v1alpha1 configuration (docs/configuration.md).
 */
import { hostname } from 'node:os';
import { detectLocalModes, type DetectLocalMode } from '../model/addresses/detector.js';
import { checkSettings } from './values/checks.js';
import { flagValues, type CommandLine } from './flags/command-line.js';
import { normalForm, withDefaults } from './effective.js';
import { settingsMode } from './modes.js';
import { ConfigError } from './errors.js';
import type { FeatureGates } from './values/feature-gates.js';
import { contentTypes, parseHostPort, splitClusterCIDR, type FieldValues, type HostPort } from './fields.js';
import { kubernetesRelease } from '../version/kubernetes-version.js';
import {
  readTextFile,
  settingsFromFile,
  settingsFromFlags,
  type ReadFile,
  type Settings,
} from './sources.js';
import type { VmoduleItem } from './values/values.js';

export type { FieldPath, FieldValues, HostPort } from './fields.js';

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
  /** How often the kernel is compared with what is wanted without a reason; 0: never. */
  readonly fullCheckPeriodMs: number;
  /** 'namespace/name' of Services that are programmed first at a start. */
  readonly firstServices: readonly string[];

  readonly nodeName: string;
  /** Empty: automatic, the best mode that the kernel has, with the settings of mode iptables. */
  readonly mode: string;
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
  /** Mode nftables with its gate: where `localhostNodePorts` says nothing, loopback addresses that are named answer. */
  readonly localhostNodePortsByGate: boolean;
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

  /** What is reported as the version of Kubernetes, `v1.37.2`. */
  readonly kubernetesVersion: string;
  /** Every field of v1alpha1 with the value in force: what `/configz` and `--write-config-to` show. */
  readonly fields: FieldValues;
  /** Every flag with its value as text, by name: what `/flagz` shows. A configuration file does not change it. */
  readonly flags: Readonly<Record<string, string>>;
  /** Things worth a warning that do not stop the program. */
  readonly warnings: readonly string[];
}

/**
 * @param read reads the configuration file; for those who have read it already
 * @throws ConfigError naming every wrong setting at once
 */
export function loadConfig(commandLine: CommandLine, read: ReadFile = readTextFile): Config {
  const { control } = commandLine;
  const problems = [...commandLine.problems];
  const warnings: string[] = [];
  let settings: Settings;
  try {
    settings =
      control.config === ''
        ? settingsFromFlags(commandLine)
        : settingsFromFile(control.config, commandLine, read);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError([...problems, ...error.problems], { cause: error });
  }
  problems.push(...settings.problems, ...(control['strict-config'] ? settings.oddities : []));
  warnings.push(...settings.warnings, ...(control['strict-config'] ? [] : settings.oddities));

  const all = withDefaults(settings, commandLine);
  const findings = checkSettings(settings, all);
  problems.push(...findings.problems);
  warnings.push(...findings.warnings, ...idlePorts(commandLine, all));
  const fields = normalForm(all);
  const nodeName = fields.hostnameOverride || hostname().trim().toLowerCase();
  if (nodeName === '') problems.push(`the host has no name: set ${settings.name('hostnameOverride')}`);
  if (problems.length > 0) throw new ConfigError([...new Set(problems)]);

  return {
    configFile: control.config,
    strictConfig: control['strict-config'],
    writeConfigTo: control['write-config-to'],
    cleanup: control.cleanup,
    initOnly: control['init-only'],
    stateFile: control['state-file'],
    manifests: control.manifests,
    startupTimeoutMs: control['startup-timeout'],
    fullCheckPeriodMs: control['full-check-period'],
    firstServices: control['first-services'],
    nodeName,
    client: {
      kubeconfig: fields['clientConnection.kubeconfig'],
      master: control.master,
      contentType: contentTypes[fields['clientConnection.contentType']] ?? 'protobuf',
      acceptContentTypes: fields['clientConnection.acceptContentTypes'],
      qps: fields['clientConnection.qps'],
      burst: fields['clientConnection.burst'],
    },
    gates: findings.gates,
    ...modeConfig(fields),
    logging: loggingConfig(fields),
    detectLocalMode: detectLocalModes.find((mode) => mode === fields.detectLocalMode) ?? 'ClusterCIDR',
    clusterCIDRs: splitClusterCIDR(fields.clusterCIDR),
    podBridgeInterface: fields['detectLocal.bridgeInterface'],
    podInterfaceNamePrefix: fields['detectLocal.interfaceNamePrefix'],
    localhostNodePorts: fields['iptables.localhostNodePorts'] ?? undefined,
    localhostNodePortsByGate:
      fields.mode === 'nftables' && findings.gates.KubeProxyNFTablesLocalhostNodePorts,
    nodePortAddresses: fields.nodePortAddresses,
    ipvs: {
      scheduler: fields['ipvs.scheduler'],
      excludeCIDRs: fields['ipvs.excludeCIDRs'],
      strictARP: fields['ipvs.strictARP'],
      tcpTimeoutMs: fields['ipvs.tcpTimeout'],
      tcpFinTimeoutMs: fields['ipvs.tcpFinTimeout'],
      udpTimeoutMs: fields['ipvs.udpTimeout'],
    },
    conntrack: {
      maxPerCore: fields['conntrack.maxPerCore'],
      min: fields['conntrack.min'],
      tcpEstablishedTimeoutMs: fields['conntrack.tcpEstablishedTimeout'],
      tcpCloseWaitTimeoutMs: fields['conntrack.tcpCloseWaitTimeout'],
      tcpBeLiberal: fields['conntrack.tcpBeLiberal'],
      udpTimeoutMs: fields['conntrack.udpTimeout'],
      udpStreamTimeoutMs: fields['conntrack.udpStreamTimeout'],
    },
    oomScoreAdj: fields.oomScoreAdj,
    configSyncPeriodMs: fields.configSyncPeriod,
    bindAddress: fields.bindAddress,
    healthzBindAddress: listenAddress(fields.healthzBindAddress),
    metricsBindAddress: listenAddress(fields.metricsBindAddress),
    bindAddressHardFail: fields.bindAddressHardFail,
    enableProfiling: fields.enableProfiling,
    showHiddenMetricsForVersion: fields.showHiddenMetricsForVersion,
    kubernetesVersion: control.version.startsWith('v') ? control.version : kubernetesRelease,
    fields,
    flags: flagValues(commandLine),
    warnings,
  };
}

type ModeConfig = Pick<
  Config,
  'mode' | 'masqueradeAll' | 'masqueradeBit' | 'syncPeriodMs' | 'minSyncPeriodMs'
>;

/** The settings that have one field per mode. */
function modeConfig(fields: FieldValues): ModeConfig {
  const active = settingsMode(fields.mode);
  const marking = active === 'nftables' ? 'nftables' : 'iptables';
  return {
    mode: fields.mode,
    masqueradeAll: fields[`${marking}.masqueradeAll`],
    masqueradeBit: fields[`${marking}.masqueradeBit`],
    syncPeriodMs: fields[`${active}.syncPeriod`],
    minSyncPeriodMs: fields[`${active}.minSyncPeriod`],
  };
}

function loggingConfig(fields: FieldValues): LoggingConfig {
  const format = fields['logging.format'] === 'json' ? 'json' : 'text';
  return {
    format,
    verbosity: fields['logging.verbosity'],
    vmodule: fields['logging.vmodule'],
    flushFrequencyMs: fields['logging.flushFrequency'],
    splitStream: fields[`logging.options.${format}.splitStream`],
    infoBufferBytes: fields[`logging.options.${format}.infoBufferSize`],
  };
}

function listenAddress(text: string): HostPort | undefined {
  const parsed = parseHostPort(text);
  return typeof parsed === 'string' ? undefined : parsed;
}

/** The deprecated port flags yield to a port in the address, and every default has one. */
function idlePorts({ given, control }: CommandLine, values: FieldValues): readonly string[] {
  const pairs = [
    ['healthz-port', 'healthz-bind-address', values.healthzBindAddress],
    ['metrics-port', 'metrics-bind-address', values.metricsBindAddress],
  ] as const;
  return pairs
    .filter(([port, , address]) => {
      const parsed = parseHostPort(address);
      return (
        control.config === '' &&
        given.has(port) &&
        typeof parsed !== 'string' &&
        parsed.port !== control[port]
      );
    })
    .map(
      ([port, flag, address]) =>
        `--${port}=${control[port]} has no effect: the port is that of --${flag}, ${address}`,
    );
}
