/** What `--help` prints, and the lines in which a start logs its flags. */
import { flags, type Flag } from './flags.js';
import type { FieldPath } from '../fields.js';

const idleGroup = 'Without effect here';
const idleFlags: ReadonlySet<string> = new Set(['boot-id-file', 'machine-id-file']);

/** Groups of settings, in the order of help and documentation, by the first names of their fields. */
const groups: readonly (readonly [title: string, sections: readonly string[]])[] = [
  ['Mode', ['mode', 'iptables', 'nftables', 'ipvs']],
  ['Node and addresses', ['hostnameOverride', 'bindAddress', 'nodePortAddresses']],
  ['Which traffic comes from pods', ['detectLocalMode', 'detectLocal', 'clusterCIDR']],
  ['API server', ['clientConnection', 'configSyncPeriod']],
  ['Connection tracking', ['conntrack']],
  [
    'Health, metrics and debugging',
    [
      'healthzBindAddress',
      'metricsBindAddress',
      'bindAddressHardFail',
      'enableProfiling',
      'showHiddenMetricsForVersion',
    ],
  ],
  ['Logging', ['logging']],
  ['Process', ['oomScoreAdj', 'featureGates']],
  [idleGroup, ['winkernel', 'windowsRunAsService', 'portRange']],
];

export const commandGroup = 'What to do, and with what';
export const groupTitles: readonly string[] = [commandGroup, ...groups.map(([title]) => title)];

/** Words that may stand in front of the flags; `kube-proxy WORD --help` says more. */
export const helpCommands = [
  {
    name: 'ipvs',
    help: 'Show the virtual servers of IPVS with the names of Services and Pods, as a table or JSON.',
  },
  {
    name: 'migration-report',
    help: 'Tell what will be different on this node when it leaves mode ipvs.',
  },
] as const;

/** The group of a field; undefined stands for flags without a field. */
export function groupOf(path: FieldPath | undefined): string {
  const section = path?.split('.', 1)[0] ?? '';
  return groups.find(([, sections]) => sections.includes(section))?.[0] ?? commandGroup;
}

/** The default, where it is worth a word. */
function defaultOf({ kind, default: initial, defaultText }: Flag): string {
  const shown = defaultText ?? kind.format(initial);
  return ['', 'false', '[]', '0', '0s'].includes(shown) ? '' : shown;
}

export function helpText(): string {
  const lines = [
    'kube-proxy makes the kernel of this node send the traffic for Services to their Pods.',
    '',
    'Usage:',
    '  kube-proxy [flags]',
    '  kube-proxy COMMAND [flags]',
    '',
    'Commands that look and change nothing (kube-proxy COMMAND --help says more):',
    ...helpCommands.map(({ name, help }) => `  ${name.padEnd(18)}${help}`),
  ];
  for (const title of groupTitles) {
    const members = [...flags].filter(
      ([name, { deprecated, fields }]) =>
        deprecated === undefined && title === (idleFlags.has(name) ? idleGroup : groupOf(fields[0])),
    );
    if (members.length === 0) continue;
    lines.push('', `${title}:`);
    for (const [name, flag] of members) {
      const short = flag.short === undefined ? '    ' : `-${flag.short}, `;
      const argument = flag.kind.name === 'bool' ? '' : ` ${flag.kind.name}`;
      const initial = defaultOf(flag);
      lines.push(`  ${short}--${name}${argument}${initial === '' ? '' : ` (default ${initial})`}`);
      lines.push(...wrap(flag.help, 100).map((line) => `          ${line}`));
    }
  }
  return `${lines.join('\n')}\n`;
}

/** Lines of at most `width` characters, broken at blanks. */
function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

/** `FLAG: --name="value"`, one per flag: what a start logs at verbosity 1. */
export function flagLines(values: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(values).map(([name, value]) => `FLAG: --${name}=${JSON.stringify(value)}`);
}
