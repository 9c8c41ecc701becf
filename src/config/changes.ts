/** What differs between two configurations, for a reload. */
import type { Config } from './config.js';

/** Not settings: where they came from and what was said about them. */
const besides = new Set<string>(['warnings', 'configFile'] satisfies (keyof Config)[]);

/** Paths of the settings that differ, such as `logging.verbosity`, in the order of the type. */
export function changedSettings(before: Config, after: Config): readonly string[] {
  const changed: string[] = [];
  const compare = (a: unknown, b: unknown, path: string): void => {
    if (besides.has(path) || Object.is(a, b)) return;
    if (!isRecord(a) || !isRecord(b)) {
      if (JSON.stringify(a) !== JSON.stringify(b)) changed.push(path);
      return;
    }
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)]))
      compare(a[key], b[key], path === '' ? key : `${path}.${key}`);
  };
  compare(before, after, '');
  return changed;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
