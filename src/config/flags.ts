/**
 * The command line, with the grammar of upstream's flags (spf13/pflag): `--name=value`, `--name value`, `-v 4`,
 * booleans with an optional `=value`, `_` and `-` the same in names, the last of repeated scalars wins.
 */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { UsageError } from './errors.js';

type FlagType = 'string' | 'bool' | 'int' | 'duration' | 'strings' | 'map';

export interface Flag {
  readonly name: string;
  readonly type: FlagType;
  /** As shown by --help. */
  readonly default: string;
  readonly help: string;
  readonly short?: string;
}

export const flags: readonly Flag[] = [
  {
    name: 'bind-address',
    type: 'string',
    default: '0.0.0.0',
    help: "Overrides the node's IP address, which decides which addresses 'primary' means and which source ranges contain the node; unspecified: the Node object's addresses. Nothing listens on it.",
  },
  {
    name: 'bind-address-hard-fail',
    type: 'bool',
    default: 'false',
    help: 'Exit when the health or metrics port cannot be bound, instead of trying again every 5 s.',
  },
  {
    name: 'cleanup',
    type: 'bool',
    default: 'false',
    help: 'Remove everything kube-proxy has put into the kernel, say what was removed, and exit.',
  },
  {
    name: 'cluster-cidr',
    type: 'strings',
    default: '',
    help: "The cluster's pod ranges, one per family: sources outside are masqueraded when they use a cluster IP.",
  },
  {
    name: 'config',
    type: 'string',
    default: '',
    help: 'Path of a KubeProxyConfiguration file (v1alpha1, YAML or JSON). It replaces all settings made by flags except --cleanup, --hostname-override, --manifests, --master, --v, --logging-format.',
  },
  {
    name: 'detect-local-mode',
    type: 'string',
    default: '',
    help: 'How a local pod is recognised: ClusterCIDR (default), NodeCIDR, BridgeInterface or InterfaceNamePrefix.',
  },
  {
    name: 'feature-gates',
    type: 'map',
    default: '',
    help: 'name=true|false pairs. Known: AllowServiceExternalIPs (default true).',
  },
  {
    name: 'healthz-bind-address',
    type: 'string',
    default: '0.0.0.0:10256',
    help: 'Address and port of /healthz and /livez.',
  },
  { name: 'help', type: 'bool', default: 'false', help: 'Show this help.', short: 'h' },
  {
    name: 'hostname-override',
    type: 'string',
    default: '',
    help: "Name of this node's Node object, if it is not the hostname.",
  },
  {
    name: 'iptables-min-sync-period',
    type: 'duration',
    default: '10ms',
    help: 'Least time between two kernel transactions, in nftables mode too. Upstream waits 1s.',
  },
  {
    name: 'iptables-sync-period',
    type: 'duration',
    default: '30s',
    help: 'How soon a failed transaction is tried again at the latest, in nftables mode too.',
  },
  {
    name: 'kube-api-content-type',
    type: 'string',
    default: 'application/vnd.kubernetes.protobuf',
    help: 'Encoding asked of the API server: application/vnd.kubernetes.protobuf or application/json.',
  },
  {
    name: 'kubeconfig',
    type: 'string',
    default: '',
    help: 'Path of a kubeconfig file with the address of the API server and credentials. Without it, --master and --manifests: the in-cluster configuration.',
  },
  { name: 'logging-format', type: 'string', default: 'text', help: 'text or json.' },
  {
    name: 'manifests',
    type: 'string',
    default: '',
    help: 'Serve the Services of a manifest file or folder instead of an API server; followed when it changes.',
  },
  { name: 'masquerade-all', type: 'bool', default: 'false', help: 'Masquerade all traffic to cluster IPs.' },
  { name: 'master', type: 'string', default: '', help: "URL of the API server; overrides kubeconfig's." },
  {
    name: 'metrics-bind-address',
    type: 'string',
    default: '127.0.0.1:10249',
    help: 'Address and port of /metrics and /proxyMode.',
  },
  {
    name: 'nodeport-addresses',
    type: 'strings',
    default: '',
    help: "CIDRs of the node addresses that serve node ports, or 'primary': the node's own IPs (the default in nftables mode).",
  },
  {
    name: 'pod-bridge-interface',
    type: 'string',
    default: '',
    help: 'The bridge of --detect-local-mode=BridgeInterface.',
  },
  {
    name: 'pod-interface-name-prefix',
    type: 'string',
    default: '',
    help: 'The prefix of --detect-local-mode=InterfaceNamePrefix.',
  },
  {
    name: 'proxy-mode',
    type: 'string',
    default: '',
    help: 'nftables. Other modes of upstream (iptables, ipvs) are not built yet.',
  },
  {
    name: 'startup-timeout',
    type: 'duration',
    default: '30s',
    help: 'Exit when the API server did not answer for this long after the start; 0s waits for ever. Rules of an earlier process stay in force either way.',
  },
  { name: 'v', type: 'int', default: '0', help: 'Log verbosity.', short: 'v' },
  { name: 'version', type: 'bool', default: 'false', help: 'Print the version and exit.' },
];

const byName = new Map(flags.map((flag) => [flag.name, flag]));
const byShort = new Map(
  flags.flatMap((flag) => (flag.short === undefined ? [] : [[flag.short, flag] as const])),
);

/** Flags that were given, as text; lists as their items. */
export type FlagValues = ReadonlyMap<string, string | readonly string[]>;

const trueWords = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const falseWords = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

/** @throws UsageError that names the flag. */
export function parseFlags(args: readonly string[]): FlagValues {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const flag of flags) {
    const type = flag.type === 'bool' ? 'boolean' : 'string';
    options[flag.name] = flag.short === undefined ? { type } : { type, short: flag.short };
  }
  const normalised = args.map((arg) =>
    arg.startsWith('--') ? arg.replace(/^[^=]*/, (name) => name.replaceAll('_', '-')) : arg,
  );
  const { tokens } = parseArgs({
    args: normalised,
    options,
    strict: false,
    tokens: true,
    allowPositionals: true,
  });

  const values = new Map<string, string | readonly string[]>();
  for (const token of tokens) {
    if (token.kind === 'positional') {
      if (token.value === '') continue;
      throw new UsageError(
        `"kube-proxy" takes no arguments, only flags, but got ${JSON.stringify(token.value)}`,
      );
    }
    if (token.kind !== 'option') continue;
    const long = token.rawName.startsWith('--');
    const flag = long ? byName.get(token.name) : (byShort.get(token.name) ?? byName.get(token.name));
    if (flag === undefined || (long && token.name === '')) {
      throw new UsageError(
        long
          ? `unknown flag: ${token.rawName}${suggestion(token.name)}`
          : `unknown shorthand flag: '${token.name}' in ${token.rawName}`,
      );
    }
    const value = long ? token.value : token.value?.replace(/^=/, '');
    values.set(flag.name, readValue(flag, token.rawName, value, values.get(flag.name)));
  }
  return values;
}

function readValue(
  flag: Flag,
  given: string,
  value: string | undefined,
  before: string | readonly string[] | undefined,
): string | readonly string[] {
  const bad = (reason: string): UsageError =>
    new UsageError(`invalid argument ${JSON.stringify(value)} for "--${flag.name}" flag: ${reason}`);
  if (flag.type === 'bool') {
    const text = value ?? 'true';
    if (trueWords.has(text)) return 'true';
    if (falseWords.has(text)) return 'false';
    throw bad('must be true or false');
  }
  if (value === undefined) throw new UsageError(`flag needs an argument: ${given}`);
  switch (flag.type) {
    case 'int':
      if (!/^\d{1,9}$/.test(value)) throw bad('must be a number from 0 to 999999999');
      return value;
    case 'duration':
      if (parseDuration(value) === undefined) throw bad('must be a duration such as 300ms, 5s or 1m30s');
      return value;
    case 'strings':
    case 'map': {
      const items = value === '' ? [] : value.split(',');
      return typeof before === 'object' ? [...before, ...items] : items;
    }
    case 'string':
      return value;
  }
}

const units: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1e3,
  m: 6e4,
  h: 3.6e6,
};

/** Go's duration syntax. @returns milliseconds, or undefined when it is not one. */
export function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  if (!/^((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(number) * (units[unit ?? ''] ?? 0);
  }
  return total;
}

/** The closest known flag, for a slip of the keyboard. */
function suggestion(name: string): string {
  let best: string | undefined;
  let bestDistance = 3;
  for (const flag of flags) {
    const distance = editDistance(name, flag.name);
    if (distance < bestDistance) {
      best = flag.name;
      bestDistance = distance;
    }
  }
  return best === undefined ? ' (kube-proxy --help lists the flags)' : ` (did you mean --${best}?)`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

export function helpText(): string {
  const lines = [
    'kube-proxy makes the kernel of this node send the traffic for Services to their Pods.',
    '',
    'Usage:',
    '  kube-proxy [flags]',
    '',
    'Flags:',
  ];
  for (const flag of flags) {
    const short = flag.short !== undefined && flag.short !== flag.name ? `-${flag.short}, ` : '    ';
    const name = `${short}--${flag.name}${flag.type === 'bool' ? '' : ` ${flag.type}`}`;
    const initial = flag.default === '' || flag.default === 'false' ? '' : ` (default ${flag.default})`;
    lines.push(`  ${name}`, `          ${flag.help}${initial}`);
  }
  return `${lines.join('\n')}\n`;
}
