/** What the double holds: objects with one counter of versions for all, and a log of changes for watches. */
import { randomUUID } from 'node:crypto';
import { isObject, objectIn, textIn, withDefaults, type Json } from './defaults.js';
import { encodeObject } from './protobuf.js';
import { apiVersionOf, servedKinds, type ServedKind } from './resources.js';
import type { Selectable } from './selectors.js';

/** One version of one object. Encodings are made once, when they are first asked for. */
export class StoredObject implements Selectable {
  readonly kind: ServedKind;
  readonly namespace: string;
  readonly name: string;
  readonly version: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly fields: Readonly<Record<string, string>>;
  /** JSON without kind and apiVersion, as it stands in lists. */
  readonly json: Buffer;
  private rawObjects: Buffer | undefined;

  constructor(kind: ServedKind, object: Json, version: number) {
    const metadata = objectIn(object, 'metadata');
    this.kind = kind;
    this.namespace = textIn(metadata, 'namespace');
    this.name = textIn(metadata, 'name');
    this.version = version;
    const labels = objectIn(metadata, 'labels');
    this.labels = Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, String(value)]));
    const spec = objectIn(object, 'spec');
    this.fields = {
      'metadata.name': this.name,
      'metadata.namespace': this.namespace,
      ...(kind.kind === 'Service'
        ? { 'spec.clusterIP': textIn(spec, 'clusterIP'), 'spec.type': textIn(spec, 'type') }
        : {}),
    };
    // JSON leaves out what is undefined.
    this.json = Buffer.from(JSON.stringify({ ...object, kind: undefined, apiVersion: undefined }));
  }

  get key(): string {
    return this.namespace === '' ? this.name : `${this.namespace}/${this.name}`;
  }

  object(): Json {
    return JSON.parse(this.json.toString()) as Json;
  }

  /** JSON with kind and apiVersion, as it stands alone. */
  alone(): string {
    const head = JSON.stringify({ kind: this.kind.kind, apiVersion: apiVersionOf(this.kind) });
    return `${head.slice(0, -1)},${this.json.toString().slice(1)}`;
  }

  /** The raw protobuf message. */
  raw(): Buffer {
    return (this.rawObjects ??= encodeObject(this.kind.kind, this.object()));
  }
}

export interface Change {
  readonly version: number;
  readonly before: StoredObject | undefined;
  /** For a deletion: the last state, with the version of the deletion. */
  readonly after: StoredObject;
  readonly deleted: boolean;
}

interface Backup {
  readonly version: number;
  readonly compacted: number;
  readonly objects: ReadonlyMap<string, ReadonlyMap<string, StoredObject>>;
  readonly log: readonly Change[];
}

export class Store {
  private lastVersion = 1;
  /** Watches can start after this version. */
  private compactedUpTo = 0;
  private readonly objects = new Map<string, Map<string, StoredObject>>();
  private readonly sorted = new Map<string, readonly StoredObject[]>();
  private log: Change[] = [];
  private backupState: Backup | undefined;
  private readonly listeners = new Set<(change: Change) => void>();

  get version(): number {
    return this.lastVersion;
  }

  get compacted(): number {
    return this.compactedUpTo;
  }

  onChange(listener: (change: Change) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Changes of one kind after `version`, oldest first. */
  changesAfter(kind: ServedKind, version: number): readonly Change[] {
    return this.log.filter((change) => change.after.kind === kind && change.version > version);
  }

  /** Objects in the order of their keys. */
  list(kind: ServedKind): readonly StoredObject[] {
    let sorted = this.sorted.get(kind.kind);
    if (sorted === undefined) {
      sorted = [...(this.objects.get(kind.kind)?.values() ?? [])].sort((a, b) =>
        a.key < b.key ? -1 : a.key > b.key ? 1 : 0,
      );
      this.sorted.set(kind.kind, sorted);
    }
    return sorted;
  }

  count(kind: ServedKind): number {
    return this.objects.get(kind.kind)?.size ?? 0;
  }

  get(kind: ServedKind, key: string): StoredObject | undefined {
    return this.objects.get(kind.kind)?.get(key);
  }

  /**
   * Create or replace. Namespace, uid, creationTimestamp and defaults are filled in.
   * @throws Error when the object is of no kind that is served
   */
  put(object: unknown): StoredObject {
    if (!isObject(object)) throw new Error('not an object');
    const kind = servedKinds.find(
      (served) => served.kind === object['kind'] && apiVersionOf(served) === object['apiVersion'],
    );
    if (kind === undefined) {
      throw new Error(`not served: ${String(object['apiVersion'])} ${String(object['kind'])}`);
    }
    const metadata = objectIn(object, 'metadata');
    if (typeof metadata['name'] !== 'string') throw new Error('metadata.name is missing');
    const namespace = kind.namespaced ? textIn(metadata, 'namespace') || 'default' : '';
    const key = namespace === '' ? metadata['name'] : `${namespace}/${metadata['name']}`;
    const objects = this.kindMap(kind);
    const before = objects.get(key);
    const old = before === undefined ? {} : objectIn(before.object(), 'metadata');
    const version = ++this.lastVersion;
    const after = new StoredObject(
      kind,
      withDefaults(kind.kind, {
        ...object,
        metadata: {
          ...metadata,
          ...(namespace === '' ? {} : { namespace }),
          uid: metadata['uid'] ?? old['uid'] ?? randomUUID(),
          creationTimestamp:
            metadata['creationTimestamp'] ??
            old['creationTimestamp'] ??
            new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
          resourceVersion: String(version),
        },
      }),
      version,
    );
    objects.set(key, after);
    this.sorted.delete(kind.kind);
    this.record({ version, before, after, deleted: false });
    return after;
  }

  /** @returns false when there was no such object */
  delete(kind: ServedKind, key: string): boolean {
    const before = this.kindMap(kind).get(key);
    if (before === undefined) return false;
    this.kindMap(kind).delete(key);
    this.sorted.delete(kind.kind);
    const version = ++this.lastVersion;
    const object = before.object();
    const after = new StoredObject(
      kind,
      { ...object, metadata: { ...objectIn(object, 'metadata'), resourceVersion: String(version) } },
      version,
    );
    this.record({ version, before, after, deleted: true });
    return true;
  }

  /**
   * Put a copy away, for restore().
   * @param written so many versions later it goes on: much is written before a backup is needed
   */
  backup(written = 1_000_000): void {
    this.backupState = {
      version: this.lastVersion,
      compacted: this.compactedUpTo,
      objects: new Map([...this.objects].map(([kind, objects]) => [kind, new Map(objects)])),
      log: [...this.log],
    };
    this.lastVersion += written;
  }

  /** Go back to the state of the backup, the counter of versions included. @returns false when there is none */
  restore(): boolean {
    if (this.backupState === undefined) return false;
    const { version, compacted, objects, log } = this.backupState;
    this.lastVersion = version;
    this.compactedUpTo = compacted;
    this.log = [...log];
    this.sorted.clear();
    this.objects.clear();
    for (const [kind, held] of objects) this.objects.set(kind, new Map(held));
    return true;
  }

  /** Forget the log: watches and continue tokens from before are expired. */
  compact(): void {
    this.lastVersion++;
    this.compactedUpTo = this.lastVersion;
    this.log = [];
  }

  private kindMap(kind: ServedKind): Map<string, StoredObject> {
    let map = this.objects.get(kind.kind);
    if (map === undefined) {
      map = new Map();
      this.objects.set(kind.kind, map);
    }
    return map;
  }

  private record(change: Change): void {
    this.log.push(change);
    // A client that is further behind gets 410, as from a real server; memory stays bounded under churn.
    if (this.log.length > 20_000) {
      this.log = this.log.slice(10_000);
      this.compactedUpTo = (this.log[0]?.version ?? 1) - 1;
    }
    for (const listener of this.listeners) listener(change);
  }
}
