import { readFileSync } from 'node:fs';

const packageFile: unknown = JSON.parse(
  readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
);

/** Version of this program, from package.json. */
export const version =
  typeof packageFile === 'object' && packageFile !== null && 'version' in packageFile
    ? String(packageFile.version)
    : 'unknown';

/** Architectures as Go calls them, where Node has another name. */
const architectures: Readonly<Partial<Record<string, string>>> = { x64: 'amd64', ia32: '386' };
export const platform = `${process.platform}/${architectures[process.arch] ?? process.arch}`;

/**
 * What `--version` prints. The first line is upstream's, for the tools that read it: the release whose kube-proxy this program
 * stands in for. The second is our own.
 *
 * @param kubernetes such as `v1.37.2`
 */
export function versionText(kubernetes: string): string {
  return `Kubernetes ${kubernetes}\nkube-proxy-ts v${version}\n`;
}

/** What `--version=raw` prints: one line in upstream's layout. Go's compiler had no part in this program. */
export function rawVersionText(kubernetes: string): string {
  const [, major = '', minor = ''] = /^v(\d+)\.(\d+)/.exec(kubernetes) ?? [];
  const members: readonly (readonly [string, string])[] = [
    ['Major', major],
    ['Minor', minor],
    ['EmulationMajor', ''],
    ['EmulationMinor', ''],
    ['MinCompatibilityMajor', ''],
    ['MinCompatibilityMinor', ''],
    ['GitVersion', kubernetes],
    ['GitCommit', `kube-proxy-ts v${version}`],
    ['GitTreeState', ''],
    ['BuildDate', ''],
    ['GoVersion', `node ${process.version}`],
    ['Compiler', 'tsc'],
    ['Platform', platform],
  ];
  return `version.Info{${members.map(([name, value]) => `${name}:${JSON.stringify(value)}`).join(', ')}}\n`;
}
