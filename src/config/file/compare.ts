/** What a changed configuration file changed. */
import type { Config } from '../config.js';
import { fieldOf, fieldPaths, type FieldPath } from '../fields.js';
import type { Json } from '../values/values.js';

export interface FieldChange {
  readonly path: FieldPath;
  /** As documents have them. */
  readonly before: Json;
  readonly after: Json;
}

export interface ConfigChanges {
  /** Effective values that differ; a default that is now written out is no change. */
  readonly changes: readonly FieldChange[];
  /** Only logging changed: the running logger can take it over. Everything else starts the inside of the process anew. */
  readonly onlyLogging: boolean;
}

/** Settings that a running process takes over as they are. */
const isLive = (path: FieldPath): boolean => path.startsWith('logging.');

export function compareConfigs(before: Config, after: Config): ConfigChanges {
  const changes = fieldPaths.flatMap((path) => {
    const { kind } = fieldOf(path);
    const change = {
      path,
      before: kind.write(before.fields[path]),
      after: kind.write(after.fields[path]),
    };
    return JSON.stringify(change.before) === JSON.stringify(change.after) ? [] : [change];
  });
  return { changes, onlyLogging: changes.every(({ path }) => isLive(path)) };
}
