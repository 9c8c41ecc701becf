/** The configuration in force as a KubeProxyConfiguration document (config.md sections 3.6 and 5). */
import { stringify } from 'yaml';
import type { Config } from '../config.js';
import { configApiVersion, fieldOf, fieldPaths, configKind, type FieldValues } from '../fields.js';
import { isObject, type Json } from '../values/values.js';

type Members = Record<string, Json>;

/** All fields as a tree, in the order of their declaration upstream. */
export function versionedConfig(fields: FieldValues): Readonly<Record<string, Json>> {
  const root: Members = { kind: configKind, apiVersion: configApiVersion };
  for (const path of fieldPaths) {
    const { kind, omitZero } = fieldOf(path);
    const value = fields[path];
    if (omitZero === true && isZero(value)) continue;
    const names = path.split('.');
    const last = names.pop() ?? path;
    let section = root;
    for (const name of names) section = (section[name] ??= {}) as Members;
    section[last] = kind.write(value);
  }
  return root;
}

function isZero(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return value === false || (isObject(value) && Object.keys(value).length === 0);
}

/** The body of `/configz`. */
export function configz(config: Config): string {
  return JSON.stringify({ 'kubeproxy.config.k8s.io': versionedConfig(config.fields) });
}

/** What `--write-config-to` writes: YAML, keys sorted. `--config` with it gives the same configuration. */
export function configYaml(config: Config): string {
  return stringify(versionedConfig(config.fields), {
    sortMapEntries: true,
    indentSeq: false,
    lineWidth: 0,
    singleQuote: null,
    aliasDuplicateObjects: false,
    compat: 'yaml-1.1',
  });
}
