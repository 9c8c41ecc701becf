/** Configurations from flags and from documents, for tests. */
import assert from 'node:assert/strict';
import { stringify } from 'yaml';
import { parseCommandLine } from '../flags/command-line.js';
import { loadConfig, type Config } from '../config.js';
import { ConfigError } from '../errors.js';
import { configApiVersion, configKind } from '../fields.js';
import type { Json } from '../values/values.js';

/** The path under which messages name a document of a test. */
export const fileName = 'proxy.yaml';

export function fromFlags(...args: readonly string[]): Config {
  return loadConfig(parseCommandLine(args));
}

/** @param content the whole file */
export function fromText(content: string, ...args: readonly string[]): Config {
  return loadConfig(parseCommandLine([`--config=${fileName}`, ...args]), () => content);
}

const header = { apiVersion: configApiVersion, kind: configKind };

/** @param fields by path, such as `iptables.masqueradeBit` */
export function documentOf(fields: Readonly<Record<string, Json>>): Readonly<Record<string, Json>> {
  const root: Record<string, Json> = { ...header };
  for (const [path, value] of Object.entries(fields)) {
    const names = path.split('.');
    const last = names.pop() ?? path;
    let section = root;
    for (const name of names) section = (section[name] ??= {}) as Record<string, Json>;
    section[last] = value;
  }
  return root;
}

export function fromFields(fields: Readonly<Record<string, Json>>, ...args: readonly string[]): Config {
  return fromText(stringify(documentOf(fields)), ...args);
}

/** Lines after the header, which takes the first two. */
export function fromYaml(lines: string, ...args: readonly string[]): Config {
  return fromText(`apiVersion: ${configApiVersion}\nkind: ${configKind}\n${lines}`, ...args);
}

/** What keeps a configuration from loading. */
export function problemsOf(load: () => unknown): readonly string[] {
  try {
    load();
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.code, 'CONFIG_INVALID');
    return error.problems;
  }
  return [];
}
