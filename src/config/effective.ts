/**
 * From what was set to a value for every field: defaults (config.md sections 4 and 5), then what follows from one field for
 * another (section 7). The result is the configuration that `/configz` and `--write-config-to` show; read back, it is the same.
 */
import type { CommandLine } from './flags/command-line.js';
import { fieldOf, fieldPaths, noServer, withPort, type FieldValues } from './fields.js';
import { proxyModes, settingsMode } from './modes.js';
import { controlFlags } from './flags/flags.js';
import { parseAddress } from '../model/addresses/addresses.js';
import type { Settings } from './sources.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Values of all fields as they are checked, those that the mode does not use among them. */
export function withDefaults(settings: Settings, commandLine: CommandLine): FieldValues {
  const fromFlags = commandLine.control.config === '';
  const values = Object.fromEntries(
    fieldPaths.map((path) => {
      const { kind, default: initial, nullable } = fieldOf(path);
      const value = settings.values.get(path);
      const absent =
        value === undefined ||
        (nullable === undefined && value === kind.zero && !(fromFlags && kind.name === 'duration'));
      return [path, absent ? initial : value];
    }),
    // The values are those that each field's kind has read.
  ) as unknown as Mutable<FieldValues>;

  if (!fromFlags && parseAddress(values.bindAddress)?.family === 'IPv6') {
    if (isUnset(settings, 'healthzBindAddress')) values.healthzBindAddress = '[::]:10256';
    if (isUnset(settings, 'metricsBindAddress')) values.metricsBindAddress = '[::1]:10249';
  }
  const { given, control } = commandLine;
  const port = (flag: 'healthz-port' | 'metrics-port', address: string): string => {
    if (fromFlags && given.has(flag) && control[flag] === 0) return noServer;
    return withPort(address, fromFlags ? control[flag] : controlFlags[flag].default);
  };
  values.healthzBindAddress = port('healthz-port', values.healthzBindAddress);
  values.metricsBindAddress = port('metrics-port', values.metricsBindAddress);
  values.portRange = '';
  return values;
}

function isUnset(settings: Settings, path: 'healthzBindAddress' | 'metricsBindAddress'): boolean {
  return (settings.values.get(path) ?? '') === '';
}

/** The normal form of what was checked: defaults of the mode, and nothing in the settings of other modes. */
export function normalForm(all: FieldValues): FieldValues {
  const values: Mutable<FieldValues> = {
    ...all,
    hostnameOverride: all.hostnameOverride.trim().toLowerCase(),
  };
  const active = settingsMode(values.mode);
  for (const mode of proxyModes) {
    if (mode === active) continue;
    values[`${mode}.syncPeriod`] = 0;
    values[`${mode}.minSyncPeriod`] = 0;
  }
  if (active === 'nftables') {
    values['iptables.masqueradeAll'] = false;
    if (values.nodePortAddresses.length === 0) values.nodePortAddresses = ['primary'];
  } else values['nftables.masqueradeAll'] = false;
  if (active === 'iptables') values['iptables.localhostNodePorts'] ??= true;
  return values;
}
