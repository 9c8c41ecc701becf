/** From files to parsed objects that still know where they stand in their file. */
import { lstatSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { isMap, isScalar, isSeq, LineCounter, type Document } from 'yaml';
import { isObject, type JsonObject } from '../kube/decode/json/fields.js';
import { readTextWithin } from '../../yaml/bounded-file.js';
import { DepthError, parseDocuments, tooDeepInJson } from '../../yaml/documents.js';
import { ManifestError, type ManifestPlace } from './errors.js';

/** One Kubernetes object of a file; items of a List are objects of their own. */
export interface ManifestObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly value: JsonObject;
  /** Where a field of the object is written; the object itself for ''. */
  place(field: string): ManifestPlace;
}

const extensions = new Set(['.yaml', '.yml', '.json']);
/** A hundred thousand objects. */
const maxFileBytes = 64 * 1024 * 1024;

/**
 * Files of a folder in the order of their names (hidden ones and subfolders are left out), or the one file. Those that can't be
 * read are among them, dangling symbolic links too: reading them says what is wrong.
 * @throws ManifestError MANIFEST_PATH
 */
export function manifestFiles(root: string): readonly string[] {
  try {
    if (!statSync(root).isDirectory()) return [root];
    return readdirSync(root)
      .filter((name) => !name.startsWith('.') && extensions.has(path.extname(name).toLowerCase()))
      .sort()
      .map((name) => path.join(root, name))
      .filter(mayBeManifest);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw unreadable(
      root,
      error,
      missing ? 'does not exist: give --manifests a file or folder with YAML or JSON' : undefined,
    );
  }
}

function mayBeManifest(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch {
    // It is no file, or it went away this moment.
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  }
}

function unreadable(file: string, error: unknown, message?: string): ManifestError {
  const reason = error instanceof Error ? error.message : String(error);
  return new ManifestError(
    'MANIFEST_PATH',
    { file, line: 0, column: 0 },
    '',
    message ?? `can't be read (${reason})`,
    { cause: error },
  );
}

/** @throws ManifestError MANIFEST_PATH, MANIFEST_SYNTAX, MANIFEST_INVALID */
export function readManifest(file: string): readonly ManifestObject[] {
  let text: string;
  try {
    text = readTextWithin(file, maxFileBytes);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw unreadable(file, error, missing ? 'is a symbolic link to nothing' : undefined);
  }
  const json = /^\s*\{/.test(text) ? parseJson(file, text) : undefined;
  const values = json === undefined ? parseYaml(file, text).values : [json];
  // The syntax tree is large and only tells where something stands: made again for the few times that this matters.
  let tree: ParsedYaml | undefined;
  return values.flatMap((value, i) =>
    value === null || value === undefined
      ? []
      : objectsOf(value, (at) => {
          tree ??= parseYaml(file, text);
          return tree.place(i, at);
        }),
  );
}

/** A file as it is now. */
export interface ManifestFile {
  readonly file: string;
  /** Empty when it can't be used. */
  readonly objects: readonly ManifestObject[];
  /** Why it can't be used. */
  readonly error: ManifestError | undefined;
}

/** Files that did not change since they were last read are not read again. */
export class ManifestFiles {
  private files: ReadonlyMap<string, ManifestFile & { readonly signature: string }> = new Map();

  /** @throws ManifestError MANIFEST_PATH for the root; what is wrong with single files stands beside them */
  read(root: string): readonly ManifestFile[] {
    const read = new Map<string, ManifestFile & { readonly signature: string }>();
    for (const file of manifestFiles(root)) {
      const signature = fileSignature(file);
      const known = this.files.get(file);
      read.set(file, known?.signature === signature ? known : { ...readFile(file), signature });
    }
    this.files = read;
    return [...read.values()];
  }
}

function readFile(file: string): ManifestFile {
  try {
    return { file, objects: readManifest(file), error: undefined };
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    return { file, objects: [], error };
  }
}

/** Differs when the content may differ; symbolic links are followed. */
export function fileSignature(file: string): string {
  try {
    const { ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
    return `${ino} ${size} ${mtimeNs} ${ctimeNs}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

function parseJson(file: string, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const tooDeep = tooDeepInJson(text);
  if (tooDeep === undefined) return value;
  const before = text.slice(0, tooDeep).split('\n');
  const column = (before.at(-1)?.length ?? 0) + 1;
  throw tooDeepAt({ file, line: before.length, column }, new DepthError(tooDeep));
}

function tooDeepAt(place: ManifestPlace, error: DepthError): ManifestError {
  return new ManifestError('MANIFEST_SYNTAX', place, '', error.message, { cause: error });
}

interface ParsedYaml {
  readonly values: readonly unknown[];
  place(document: number, field: string): ManifestPlace;
}

function parseYaml(file: string, text: string): ParsedYaml {
  const lines = new LineCounter();
  const at = (offset: number): ManifestPlace => {
    const { line, col } = lines.linePos(offset);
    return { file, line, column: col };
  };
  let list: readonly Document.Parsed[];
  try {
    list = parseDocuments(text, lines, { uniqueKeys: true });
  } catch (error) {
    if (!(error instanceof DepthError)) throw error;
    throw tooDeepAt(at(error.offset), error);
  }
  for (const document of list) {
    const error = document.errors[0];
    if (error !== undefined) {
      const reason = error.message.split('\n')[0] ?? '';
      throw new ManifestError('MANIFEST_SYNTAX', at(error.pos[0]), '', `not valid YAML or JSON: ${reason}`, {
        cause: error,
      });
    }
  }
  let values: readonly unknown[];
  try {
    values = list.map((document) => document.toJS({ maxAliasCount: 1000 }) as unknown);
  } catch (error) {
    throw new ManifestError(
      'MANIFEST_SYNTAX',
      { file, line: 1, column: 1 },
      '',
      `not valid YAML or JSON: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  return {
    values,
    place: (index, field) => at(offsetOf(list[index]?.contents, field) ?? 0),
  };
}

/**
 * Offset of the value that a field path leads to, or of the innermost part of the path that exists. Keys of labels
 * and annotations hold dots themselves, so that the path is matched against the keys that are there.
 */
function offsetOf(node: unknown, field: string): number | undefined {
  let current = node;
  let rest = field;
  let offset = startOf(current);
  while (rest !== '') {
    if (isMap(current)) {
      const pair = current.items.find(({ key }) => {
        const name = isScalar(key) ? String(key.value) : '';
        return rest === name || rest.startsWith(`${name}.`) || rest.startsWith(`${name}[`);
      });
      if (pair === undefined) return offset;
      const name = isScalar(pair.key) ? String(pair.key.value) : '';
      offset = startOf(pair.value) ?? startOf(pair.key) ?? offset;
      current = pair.value;
      rest = rest.slice(name.length).replace(/^\./, '');
    } else if (isSeq(current)) {
      const match = /^\[(\d+)\]\.?/.exec(rest);
      if (match === null) return offset;
      current = current.items[Number(match[1])];
      offset = startOf(current) ?? offset;
      rest = rest.slice(match[0].length);
    } else {
      return offset;
    }
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  const range = (node as { range?: unknown } | null | undefined)?.range;
  return Array.isArray(range) && typeof range[0] === 'number' ? range[0] : undefined;
}

function objectsOf(
  value: unknown,
  place: (field: string) => ManifestPlace,
  prefix = '',
  inherited?: { readonly apiVersion: string; readonly kind: string },
): readonly ManifestObject[] {
  const within = (field: string): string =>
    field === '' ? prefix : prefix === '' ? field : `${prefix}.${field}`;
  const here = (field: string): ManifestPlace => place(within(field));
  const invalid = (field: string, message: string): ManifestError =>
    new ManifestError('MANIFEST_INVALID', here(field), field, message);
  if (!isObject(value)) throw invalid('', 'is not a Kubernetes object: a mapping with apiVersion and kind');
  const kind = value['kind'] ?? inherited?.kind;
  const apiVersion = value['apiVersion'] ?? inherited?.apiVersion;
  if (typeof kind !== 'string' || kind === '') throw invalid('kind', 'kind is missing');
  if (typeof apiVersion !== 'string' || apiVersion === '') {
    throw invalid('apiVersion', `${kind}: apiVersion is missing`);
  }
  if (!kind.endsWith('List')) return [{ apiVersion, kind, value, place: here }];
  const items = value['items'] ?? [];
  if (!Array.isArray(items)) throw invalid('items', `${kind}: items must be a list`);
  // Items of a typed list need not repeat what they are.
  const itemKind = kind.slice(0, -'List'.length);
  return items.flatMap((item: unknown, i) =>
    objectsOf(
      item,
      place,
      within(`items[${i}]`),
      itemKind === '' ? undefined : { apiVersion, kind: itemKind },
    ),
  );
}
