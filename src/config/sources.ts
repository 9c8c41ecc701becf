/** Where settings come from: flags, or a document and the few flags that count beside it (config.md section 2). */
import { readTextWithin } from '../yaml/bounded-file.js';
import type { CommandLine } from './flags/command-line.js';
import { readDocument } from './file/document.js';
import { ConfigError } from './errors.js';
import { fieldOf, fieldPaths, type FieldPath } from './fields.js';
import { settingsMode } from './modes.js';
import { flags } from './flags/flags.js';
import { duration, vmodule, type VmoduleItem } from './values/values.js';

/** Fields that have been set, with values of their kinds, and how messages name them. */
export interface Settings {
  readonly values: Map<FieldPath, unknown>;
  /** Fields whose values can't be read: a sentence each. */
  readonly problems: readonly string[];
  /** Unknown and duplicate fields: a sentence each. */
  readonly oddities: readonly string[];
  readonly warnings: readonly string[];
  /** As the user wrote it: a flag, or a field with file and line. */
  name(path: FieldPath, index?: number): string;
}

/** Whether the chosen mode uses the field. */
export function inUse(path: FieldPath, mode: string): boolean {
  const only = fieldOf(path).mode;
  return only === undefined || only === settingsMode(mode);
}

const flagName = (path: FieldPath): string => `--${fieldOf(path).flag ?? path}`;

export function settingsFromFlags({ given }: CommandLine): Settings {
  const asked = given.get('proxy-mode');
  const mode = typeof asked === 'string' ? asked : '';
  const values = new Map<FieldPath, unknown>();
  for (const path of fieldPaths) {
    const { flag, kind } = fieldOf(path);
    if (flag === undefined || !given.has(flag)) continue;
    // A flag of several fields means the one that the mode uses.
    if ((flags.get(flag)?.fields.length ?? 0) > 1 && !inUse(path, mode)) continue;
    let value = given.get(flag);
    // Zero is a real value here, but stands for the default in a document: the next longer one says the same in both.
    if (kind.name === duration.name && value === 0 && path.endsWith('minSyncPeriod')) value = 1e-6;
    values.set(path, value);
  }
  return { values, problems: [], oddities: [], warnings: [], name: flagName };
}

export type ReadFile = (path: string) => string;
const maxFileBytes = 16 * 1024 * 1024;
export const readTextFile: ReadFile = (path) => readTextWithin(path, maxFileBytes);

/** @throws ConfigError when the file can't be read, or is no KubeProxyConfiguration */
export function settingsFromFile(path: string, { given }: CommandLine, read: ReadFile): Settings {
  let content: string;
  try {
    content = read(path);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConfigError([`--config: cannot read ${path}: ${why}`], { cause: error });
  }
  const document = readDocument(path, content);
  const values = new Map(document.values);
  const fromFlags = new Set<FieldPath>();
  const ignored: string[] = [];
  for (const [name, value] of given) {
    const flag = flags.get(name);
    if (flag === undefined) continue;
    if (!flag.besideConfig) ignored.push(`--${name}`);
    else if (value !== '') {
      for (const field of flag.fields) {
        fromFlags.add(field);
        values.set(field, field === 'logging.vmodule' ? joined(value, values.get(field)) : value);
      }
    }
  }
  return {
    values,
    problems: document.problems,
    oddities: document.oddities,
    warnings:
      ignored.length === 0
        ? []
        : [`--config replaces the settings made by flags: ${ignored.join(', ')} ignored`],
    name: (field, index) => (fromFlags.has(field) ? flagName(field) : document.name(field, index)),
  };
}

/** Patterns of flags come first, so they win. */
function joined(fromFlag: unknown, fromFile: unknown): readonly VmoduleItem[] {
  const items = (value: unknown): readonly VmoduleItem[] => {
    const read = vmodule.read(value);
    return Array.isArray(read) ? (read as readonly VmoduleItem[]) : [];
  };
  return [...items(fromFlag), ...items(fromFile ?? [])];
}
