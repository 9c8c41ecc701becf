/** How the source of a packet is recognised as a pod: `--detect-local-mode` (service-model.md 12). */
import type { IPFamily } from '../../sources/objects.js';
import { allFamilies, parseCidr } from './addresses.js';
import type { LocalDetector } from '../types.js';

export const detectLocalModes = [
  'ClusterCIDR',
  'NodeCIDR',
  'BridgeInterface',
  'InterfaceNamePrefix',
] as const;
export type DetectLocalMode = (typeof detectLocalModes)[number];

export interface DetectorConfig {
  readonly mode: DetectLocalMode;
  /** `--cluster-cidr`, split at commas. Used by ClusterCIDR. */
  readonly clusterCIDRs: readonly string[];
  /** Node.spec.podCIDRs of this node. Used by NodeCIDR. */
  readonly podCIDRs: readonly string[];
  /** `--pod-bridge-interface`. */
  readonly bridgeInterface: string;
  /** `--pod-interface-name-prefix`. */
  readonly interfaceNamePrefix: string;
}

export interface Detectors {
  readonly IPv4: LocalDetector | undefined;
  readonly IPv6: LocalDetector | undefined;
  /** For a family in which no source counts as a pod: why, and what follows from it. */
  readonly warnings: Readonly<Record<IPFamily, string | undefined>>;
}

export function isDetectLocalMode(text: string): text is DetectLocalMode {
  return (detectLocalModes as readonly string[]).includes(text);
}

/** What is wrong with the settings, one sentence each; empty when they can be used. */
export function validateDetector(config: DetectorConfig): readonly string[] {
  switch (config.mode) {
    case 'ClusterCIDR':
      return validateClusterCIDRs(config.clusterCIDRs);
    case 'NodeCIDR':
      return config.podCIDRs
        .filter((text) => parseCidr(text) === undefined)
        .map((text) => `the node's pod CIDR '${text}' is not a valid CIDR`);
    case 'BridgeInterface':
      return config.bridgeInterface === ''
        ? ['detect-local-mode BridgeInterface needs the name of the bridge: set --pod-bridge-interface']
        : [];
    case 'InterfaceNamePrefix':
      return config.interfaceNamePrefix === ''
        ? ['detect-local-mode InterfaceNamePrefix needs a prefix: set --pod-interface-name-prefix']
        : [];
  }
}

/** One detector per family; undefined where nobody counts as a pod. */
export function resolveDetectors(config: DetectorConfig): Detectors {
  switch (config.mode) {
    case 'BridgeInterface':
      return bothFamilies({ kind: 'interface', name: config.bridgeInterface });
    case 'InterfaceNamePrefix':
      return bothFamilies({ kind: 'interfacePrefix', prefix: config.interfaceNamePrefix });
    case 'ClusterCIDR':
      return perFamily(config.clusterCIDRs, 'cluster CIDR');
    case 'NodeCIDR':
      return perFamily(config.podCIDRs, 'pod CIDR of this node');
  }
}

function validateClusterCIDRs(values: readonly string[]): readonly string[] {
  const problems: string[] = [];
  const parsed = values.map((text) => {
    const cidr = parseCidr(text);
    if (cidr === undefined) {
      problems.push(`cluster-cidr entry '${text}' must be a valid CIDR, such as 10.0.0.0/16 or fd00::/48`);
    }
    return cidr;
  });
  if (values.length > 2 || (parsed.length === 2 && parsed[0]?.family === parsed[1]?.family)) {
    problems.push(
      'cluster-cidr takes one CIDR, or one of each family for a dual-stack cluster, such as 10.0.0.0/16,fd00::/48',
    );
  }
  return problems;
}

function bothFamilies(detector: LocalDetector): Detectors {
  return { IPv4: detector, IPv6: detector, warnings: { IPv4: undefined, IPv6: undefined } };
}

function perFamily(values: readonly string[], what: string): Detectors {
  const parsed = values.map((text) => parseCidr(text.trim())).filter((cidr) => cidr !== undefined);
  const detectors: Record<IPFamily, LocalDetector | undefined> = { IPv4: undefined, IPv6: undefined };
  const warnings: Record<IPFamily, string | undefined> = { IPv4: undefined, IPv6: undefined };
  for (const family of allFamilies) {
    // Only the first CIDR of a family counts, as upstream.
    const first = parsed.find((cidr) => cidr.family === family);
    if (first === undefined) {
      warnings[family] =
        `no ${family} ${what} is known: no ${family} source counts as a pod, so policy Local applies to pods too and no cluster traffic is masqueraded`;
    } else {
      detectors[family] = { kind: 'cidr', cidr: first.cidr };
    }
  }
  return { ...detectors, warnings };
}
