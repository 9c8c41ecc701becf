/** Objects from YAML and JSON files. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseAllDocuments, type Document } from 'yaml';
import { apiVersionOf, servedKinds } from './resources.js';
import { isObject } from './defaults.js';
import type { Store } from './store.js';

/** Put everything that the double serves into the store; other kinds are left out. */
export function loadFiles(store: Store, root: string): void {
  const files = statSync(root).isDirectory()
    ? readdirSync(root)
        .filter((name) => /\.(ya?ml|json)$/.test(name))
        .sort()
        .map((name) => path.join(root, name))
    : [root];
  for (const file of files) {
    const documents = parseAllDocuments(readFileSync(file, 'utf8'));
    for (const document of (Array.isArray(documents) ? documents : []) as Document.Parsed[]) {
      if (document.errors[0] !== undefined) throw new Error(`${file}: ${document.errors[0].message}`);
      putAll(store, document.toJS() as unknown);
    }
  }
}

function putAll(store: Store, object: unknown): void {
  if (!isObject(object)) return;
  if (String(object['kind']).endsWith('List') && Array.isArray(object['items'])) {
    for (const item of object['items'] as unknown[]) putAll(store, item);
    return;
  }
  const known = servedKinds.some(
    (kind) => kind.kind === object['kind'] && apiVersionOf(kind) === object['apiVersion'],
  );
  if (known) store.put(object);
}
