/** What makes settings unusable: values out of their limits, and settings that do not go together (config.md section 6). */
import { formatDuration } from './duration.js';
import { resolveGates, type FeatureGates } from './feature-gates.js';
import { fieldOf, type FieldPath, type FieldValues } from '../fields.js';
import { settingsMode } from '../modes.js';
import { inUse, type Settings } from '../sources.js';

export interface Findings {
  /** A sentence each, beginning with the setting as the user wrote it. */
  readonly problems: readonly string[];
  /** Wrong values that nothing uses. */
  readonly warnings: readonly string[];
  readonly gates: FeatureGates;
}

export function checkSettings(settings: Settings, values: FieldValues): Findings {
  const problems: string[] = [];
  const warnings: string[] = [];
  const bad = (path: FieldPath, allowed: string, index?: number, shown: unknown = values[path]): void => {
    problems.push(`${settings.name(path, index)}: ${JSON.stringify(shown)}: ${allowed}`);
  };

  for (const path of settings.values.keys()) {
    const field = fieldOf(path);
    const reason = whyUnused(path, values);
    for (const { allowed, type, item } of field.limit?.find(values[path]) ?? []) {
      const shown = JSON.stringify(item?.value ?? field.kind.write(values[path]));
      const found =
        type === undefined
          ? `${shown}: ${allowed}`
          : `${type}: ${shown}${type === 'Duplicate value' ? '' : `: ${allowed}`}`;
      const text = `${settings.name(path, item?.index)}: ${found}`;
      if (reason === undefined) problems.push(text);
      else warnings.push(`${text}; ${reason}`);
    }
  }

  const active = settingsMode(values.mode);
  const [most, least] = [`${active}.syncPeriod`, `${active}.minSyncPeriod`] as const;
  if (values[most] > 0 && values[least] > values[most]) {
    const limit = `${settings.name(most)} (${formatDuration(values[most])})`;
    bad(least, `must not be greater than ${limit}`, undefined, formatDuration(values[least]));
  }
  for (const [mode, path] of [
    ['BridgeInterface', 'detectLocal.bridgeInterface'],
    ['InterfaceNamePrefix', 'detectLocal.interfaceNamePrefix'],
  ] as const) {
    if (values.detectLocalMode === mode && values[path] === '') {
      bad(path, `must be set in local mode ${mode}`);
    }
  }

  const { gates, problems: gateProblems, warnings: gateWarnings } = resolveGates(values.featureGates);
  warnings.push(...gateWarnings);
  for (const { gate, message } of gateProblems) {
    const set = values.featureGates[gate];
    const setting = settings.name('featureGates');
    problems.push(
      `${setting}: ${JSON.stringify(set === undefined ? gate : `${gate}=${set}`)}: ${gate} ${message}`,
    );
  }
  if (values.mode === 'ipvs' && !gates.KubeProxyIPVS) {
    bad(
      'mode',
      'must be iptables, nftables or blank (blank means the best mode that the kernel has) while the feature gate KubeProxyIPVS is off',
    );
  }
  const format = values['logging.format'];
  if (format === 'json' && !gates.LoggingBetaOptions) {
    bad('logging.format', 'must be text while the feature gate LoggingBetaOptions is off');
  }
  if (format !== 'text' && values['logging.vmodule'].length > 0) {
    bad('logging.vmodule', 'must be empty with a log format other than text');
  }
  if (!gates.LoggingAlphaOptions) {
    for (const path of alphaOptions) {
      if (values[path] === fieldOf(path).kind.zero) continue;
      bad(path, 'must not be set while the feature gate LoggingAlphaOptions is off');
    }
  }
  return { problems, warnings, gates };
}

const alphaOptions = [
  'logging.options.text.splitStream',
  'logging.options.text.infoBufferSize',
  'logging.options.json.splitStream',
  'logging.options.json.infoBufferSize',
] as const;

function whyUnused(path: FieldPath, { mode, detectLocalMode }: FieldValues): string | undefined {
  if (!inUse(path, mode)) {
    return mode === ''
      ? 'not used while mode is empty, which follows the settings of iptables'
      : `not used in mode ${mode}`;
  }
  if (path === 'clusterCIDR' && detectLocalMode !== 'ClusterCIDR') {
    return `not used in local mode ${detectLocalMode}`;
  }
  return undefined;
}
