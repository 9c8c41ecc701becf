/** Every flag: those that set a field (fields.ts), and those that the command line alone has. */
import { fieldOf, fieldPaths, notNegative, serviceNames, type FieldPath, type Limit } from '../fields.js';
import { kubernetesRelease } from '../../version/kubernetes-version.js';
import { bool, duration, int32, Refusal, strings, text, type Kind } from '../values/values.js';

export interface Flag<T = unknown> {
  readonly kind: Kind<T>;
  readonly default: T;
  /** What people are shown in place of the default. */
  readonly defaultText?: string;
  readonly short?: string;
  /** The value of the flag without an argument. */
  readonly bare?: string;
  /** Advice instead of it; such a flag is not shown by `--help`. */
  readonly deprecated?: string;
  /** The fields it sets. */
  readonly fields: readonly FieldPath[];
  /** Counts although --config is given. */
  readonly besideConfig: boolean;
  readonly limit?: Limit<T>;
  readonly help: string;
}

interface Row<T> {
  readonly default: NoInfer<T>;
  readonly limit?: Limit<NoInfer<T>>;
  readonly short?: string;
  readonly bare?: string;
  readonly deprecated?: string;
  /** Not: a deprecated flag that stands for a setting. */
  readonly besideConfig?: boolean;
  readonly help: string;
}

const flag = <T>(kind: Kind<T>, row: Row<T>): Flag<T> => ({
  kind,
  fields: [],
  besideConfig: row.deprecated === undefined,
  ...row,
});

/** true: print it; raw: print all of it; false: nothing. A version is one to report instead of ours. */
const versionKind: Kind<string> = {
  ...text,
  name: 'version',
  parse: (given) => {
    const truth = bool.parse(given);
    if (!(truth instanceof Refusal)) return String(truth);
    const own = kubernetesRelease.replaceAll('.', '\\.');
    return given === 'raw' || new RegExp(`^${own}([-+][0-9A-Za-z.+-]+)?$`).test(given)
      ? given
      : new Refusal(`must be true, false, raw, or ${kubernetesRelease} with a suffix to report`);
  },
};

/** Flags that upstream no longer has, but that manifests of DaemonSets still carry. */
const removed = { deprecated: 'it has no effect, and v1.37 has removed it', besideConfig: true };

export const controlFlags = {
  'boot-id-file': flag(text, {
    default: '/proc/sys/kernel/random/boot_id',
    ...removed,
    help: 'Accepted for the sake of old command lines; no effect.',
  }),
  cleanup: flag(bool, {
    default: false,
    help: 'Remove everything kube-proxy has put into the kernel, say what was removed, and exit.',
  }),
  config: flag(text, {
    default: '',
    help: 'Path of a KubeProxyConfiguration file (v1alpha1, YAML or JSON). It replaces what flags say, except those that have no field, --hostname-override and the logging flags. It is followed while the program runs.',
  }),
  'first-services': flag(strings, {
    default: ['default/kubernetes', 'kube-system/kube-dns'],
    limit: serviceNames,
    help: 'Services, as namespace/name, that are programmed before all others at a start with nothing in the kernel. After them come those that have connections.',
  }),
  'full-check-period': flag(duration, {
    default: 3_600_000,
    limit: notNegative,
    help: 'Look so often whether the kernel holds what it should, although nobody is known to have changed it. 0s: never.',
  }),
  'healthz-port': flag(int32, {
    default: 10256,
    deprecated: 'use --healthz-bind-address instead',
    help: 'Port of --healthz-bind-address where that has none. 0: no health server.',
  }),
  help: flag(bool, { default: false, short: 'h', help: 'Show this help.' }),
  'init-only': flag(bool, {
    default: false,
    help: 'Do what needs full root privileges, then exit. Afterwards kube-proxy can run with only the capability NET_ADMIN (mode iptables with the legacy tools: and NET_RAW).',
  }),
  'machine-id-file': flag(text, {
    default: '/etc/machine-id,/var/lib/dbus/machine-id',
    ...removed,
    help: 'Accepted for the sake of old command lines; no effect.',
  }),
  manifests: flag(text, {
    default: '',
    help: 'Serve the Services of a manifest file or folder instead of an API server; followed when it changes.',
  }),
  master: flag(text, { default: '', help: "URL of the API server; overrides kubeconfig's." }),
  'metrics-port': flag(int32, {
    default: 10249,
    deprecated: 'use --metrics-bind-address instead',
    help: 'Port of --metrics-bind-address where that has none. 0: no metrics server.',
  }),
  'startup-timeout': flag(duration, {
    default: 30_000,
    limit: notNegative,
    help: 'Exit when the API server did not answer for this long after the start; 0s waits for ever. Rules of an earlier process stay in force either way.',
  }),
  'state-file': flag(text, {
    default: '',
    help: "Keep the cluster's last known state in this file, to serve from it at a start without API server. Empty: off.",
  }),
  'strict-config': flag(bool, {
    default: false,
    help: 'Refuse a configuration file with unknown or duplicate fields, instead of warning about them.',
  }),
  version: flag(versionKind, {
    default: 'false',
    bare: 'true',
    help: 'Print the versions and exit; --version=raw prints every detail.',
  }),
  'write-config-to': flag(text, {
    default: '',
    help: 'Write the configuration in force to this file, as a KubeProxyConfiguration, and exit.',
  }),
} satisfies Readonly<Record<string, Flag>>;

export type ControlFlag = keyof typeof controlFlags;

/** A value for every flag that the command line alone has. */
export type ControlValues = {
  readonly [Name in ControlFlag]: (typeof controlFlags)[Name]['kind'] extends Kind<infer T> ? T : never;
};

/** All flags, in the order of the alphabet. */
export const flags: ReadonlyMap<string, Flag> = collectFlags();

function collectFlags(): ReadonlyMap<string, Flag> {
  const all = new Map<string, Flag>(Object.entries(controlFlags));
  for (const path of fieldPaths) {
    const { flag: name, ...field } = fieldOf(path);
    if (name === undefined) continue;
    const known = all.get(name);
    all.set(
      name,
      known === undefined
        ? {
            ...field,
            fields: [path],
            besideConfig: path === 'hostnameOverride' || path.startsWith('logging.'),
          }
        : { ...known, fields: [...known.fields, path] },
    );
  }
  for (const [name, known] of all) {
    if (known.kind.name === bool.name) all.set(name, { ...known, bare: 'true' });
  }
  return new Map([...all].sort(([a], [b]) => (a < b ? -1 : 1)));
}
