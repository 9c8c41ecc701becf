/** The proxy under test: any command that takes kube-proxy's flags, run inside alder's namespace. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import YAML from 'yaml';
import type { ProxySpec } from './cases.js';
import { patiently } from '../patience.js';

export class ProxyError extends Error {
  readonly code = 'ERR_CONFORMANCE_PROXY';
}

const defaultClusterCidr = ['10.61.0.0/16', 'fd61::/48'];

const ipvsSyncPeriod = '5s';

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function merge(
  base: Record<string, unknown>,
  over: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const old = result[key];
    result[key] = isRecord(old) && isRecord(value) ? merge(old, value) : value;
  }
  return result;
}

/** As flags where every setting has one, else as a configuration file: kube-proxy ignores most flags beside --config. */
export function proxyArguments(mode: string, spec: ProxySpec, configurationFile: string): readonly string[] {
  const clusterCidr = spec['cluster-cidr'] ?? defaultClusterCidr;
  const nodePorts = spec['nodeport-addresses'] === undefined ? ['primary'] : spec['nodeport-addresses'];
  const localMode = spec['detect-local-mode'] ?? 'ClusterCIDR';
  if (spec.file === undefined) {
    return [
      '--hostname-override=alder',
      `--proxy-mode=${mode}`,
      `--detect-local-mode=${localMode}`,
      ...(clusterCidr.length === 0 ? [] : [`--cluster-cidr=${clusterCidr.join(',')}`]),
      ...(nodePorts === null ? [] : [`--nodeport-addresses=${nodePorts.join(',')}`]),
      ...(spec['masquerade-all'] === true ? ['--masquerade-all'] : []),
      // So that addresses of former rows are given up soon.
      ...(mode === 'ipvs' ? [`--ipvs-sync-period=${ipvsSyncPeriod}`] : []),
      '--v=2',
    ];
  }
  const section = mode === 'nftables' ? 'nftables' : 'iptables';
  const configuration = merge(
    {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode,
      clusterCIDR: clusterCidr.join(','),
      detectLocalMode: localMode,
      nodePortAddresses: nodePorts,
      [section]: { masqueradeAll: spec['masquerade-all'] === true },
      ...(mode === 'ipvs' ? { ipvs: { syncPeriod: ipvsSyncPeriod } } : {}),
    },
    spec.file,
  );
  fs.writeFileSync(configurationFile, YAML.stringify(configuration));
  return [`--config=${configurationFile}`, '--hostname-override=alder', '--v=2'];
}

export class ProxyProcess {
  private readonly namespace: string;
  private readonly program: string;
  private readonly arguments: readonly string[];
  private readonly logText: string;
  private child: ChildProcess | undefined;

  /** `program` is a command line for the shell, `log` the file to which the proxy's output is appended. */
  constructor(namespace: string, program: string, args: readonly string[], log: string) {
    this.namespace = namespace;
    this.program = program;
    this.arguments = args;
    this.logText = log;
    fs.mkdirSync(path.dirname(log), { recursive: true });
  }

  get running(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  get log(): string {
    return this.logText;
  }

  private spawn(args: readonly string[]): ChildProcess {
    const log = fs.openSync(this.logText, 'a');
    const child = spawn(
      'ip',
      ['netns', 'exec', this.namespace, 'sh', '-c', `exec ${this.program} "$@"`, 'sh', ...args],
      { stdio: ['ignore', log, log] },
    );
    fs.closeSync(log);
    return child;
  }

  start(): void {
    if (!this.running) this.child = this.spawn(this.arguments);
  }

  /** The end of the log, for a message about a proxy that does not work. */
  tail(): string {
    const text = fs.existsSync(this.logText) ? fs.readFileSync(this.logText, 'utf8') : '';
    return text.trimEnd().split('\n').slice(-5).join('\n');
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.child;
    if (child === undefined || !this.running) return;
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => child.kill('SIGKILL'), patiently(5000));
      child.once('exit', () => {
        clearTimeout(hard);
        resolve();
      });
      child.kill(signal);
    });
  }

  /** Runs `PROGRAM --cleanup` to its end. */
  async cleanUp(mode: string): Promise<void> {
    const child = this.spawn(['--cleanup', `--proxy-mode=${mode}`]);
    const status = await new Promise<number | null>((resolve) => {
      const hard = setTimeout(() => child.kill('SIGKILL'), patiently(20_000));
      child.once('exit', (code) => {
        clearTimeout(hard);
        resolve(code);
      });
    });
    if (status !== 0)
      throw new ProxyError(`--cleanup ended with status ${status ?? 'none (killed)'}: ${this.tail()}`);
  }
}
