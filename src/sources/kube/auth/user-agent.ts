/** Who we say we are: as upstream's, so that API priority rules, audit filters and dashboards that look for it still match. */
import { basename } from 'node:path';

/** The Kubernetes release whose behaviour this program follows. */
export const kubernetesVersion = 'v1.37.2';

/** Go's names for processors, where they are not Node's. */
const processors: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/**
 * 'kube-proxy/v1.37.2 (linux/amd64) kube-proxy-ts/0.1.0'. Upstream's is the same, with 'kubernetes/COMMIT' at its end
 * (config.md section 9); the first word is the program's name there, too.
 * @param version of this program
 */
export function userAgent(version: string, program = 'kube-proxy'): string {
  const processor = processors[process.arch] ?? process.arch;
  return `${basename(program)}/${kubernetesVersion} (${process.platform}/${processor}) kube-proxy-ts/${version}`;
}
