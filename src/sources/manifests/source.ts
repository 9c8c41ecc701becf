/** The cluster as files describe it: loaded once, then followed as they change. */
import { realpathSync, statSync, watch, type FSWatcher } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { guarded } from '../../callbacks/guarded.js';
import type { ClusterSink, ResourceKind } from '../objects.js';
import type { Logger } from '../../log/logger.js';
import { fileSignature, manifestFiles } from './documents.js';
import { ManifestError } from './errors.js';
import { ManifestLoader, type ManifestSet } from './load.js';

export interface ManifestSourceOptions {
  readonly nodeName: string;
  /** Changes within this time are taken together, milliseconds; 20 when absent. */
  readonly debounceMs?: number;
  /** For file systems that do not notify: look at the files this often, milliseconds; 2000 when absent. */
  readonly pollMs?: number;
  /** A file that is wrong but was written less than this ago may still be in the making; 100 ms when absent. */
  readonly settleMs?: number;
}

const kinds: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'];

const nothing: ManifestSet = {
  services: new Map(),
  endpointSlices: new Map(),
  nodes: new Map(),
  serviceCIDRs: new Map(),
  files: 0,
  errors: [],
  ignored: [],
  warnings: [],
};

export class ManifestSource {
  private readonly root: string;
  private readonly sink: ClusterSink;
  private readonly log: Logger;
  private readonly options: Required<ManifestSourceOptions>;
  private readonly loader: ManifestLoader;
  private current = nothing;
  private signature = '';
  private reported = '';
  private watchers: FSWatcher[] = [];
  private pending: NodeJS.Timeout | undefined;
  private poll: NodeJS.Timeout | undefined;
  private stopped = false;
  /** The files or the folder can't be read. */
  private rootError: ManifestError | undefined;
  private notices = new Set<string>();

  constructor(root: string, sink: ClusterSink, log: Logger, options: ManifestSourceOptions) {
    this.root = path.resolve(root);
    this.sink = sink;
    this.log = log;
    this.options = { debounceMs: 20, pollMs: 2000, settleMs: 100, ...options };
    this.loader = new ManifestLoader(this.root, options.nodeName);
  }

  /**
   * Load everything, deliver it, and follow changes from then on.
   * @throws ManifestError when no file can be used as it is
   */
  start(): void {
    this.signature = this.look();
    const set = this.loader.load();
    const [error] = set.errors;
    if (error !== undefined && set.errors.length === set.files) throw error;
    this.report(set.errors);
    this.notify(set);
    this.apply(set);
    for (const kind of kinds) this.sink.synced(kind);
    this.sink.flush();
    this.watch();
    this.poll = setInterval(this.checkGuarded, this.options.pollMs);
    this.poll.unref();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.pending);
    clearInterval(this.poll);
    for (const watcher of this.watchers) watcher.close();
    this.watchers = [];
  }

  /** A file that can't be read this moment (EACCES, ELOOP, EMFILE) is looked at again with the next poll. */
  private readonly checkGuarded = guarded('look at the manifests', () => {
    this.check();
  });

  /** Watch the folder, not the files: a file that is replaced takes its watch with it. */
  private watch(): void {
    for (const watcher of this.watchers) watcher.close();
    this.watchers = [];
    const folders = new Set<string>();
    try {
      const real = realpathSync(this.root);
      if (statSync(real).isDirectory()) {
        folders.add(this.root).add(real);
      } else {
        folders.add(path.dirname(real));
      }
      folders.add(path.dirname(this.root));
    } catch {
      folders.add(path.dirname(this.root));
    }
    for (const folder of folders) {
      try {
        const watcher = watch(
          folder,
          { persistent: false },
          guarded('follow the manifests', () => {
            this.soon(this.options.debounceMs);
          }),
        );
        watcher.on('error', () => {
          watcher.close();
        });
        this.watchers.push(watcher);
      } catch (error) {
        this.log.debug(2, 'Failed to watch folder, polling it', {
          folder,
          err: error instanceof Error ? error.message : String(error),
        });
      }
    }
  }

  private soon(ms: number): void {
    if (this.stopped || this.pending !== undefined) return;
    this.pending = setTimeout(
      guarded('look at the manifests', () => {
        this.pending = undefined;
        this.checkGuarded();
      }),
      ms,
    );
  }

  /** Which files there are and when they last changed. */
  private look(): string {
    try {
      return manifestFiles(this.root)
        .map((file) => `${file} ${fileSignature(file)}`)
        .join('\n');
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  private check(): void {
    if (this.stopped) return;
    const signature = this.look();
    if (signature === this.signature) return;
    let set: ManifestSet;
    try {
      set = this.loader.load();
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      if (this.mayBeInTheMaking(signature)) return;
      this.signature = signature;
      this.rootError = error;
      this.log.error('Failed to load manifests, keeping the last good state', error);
      return;
    }
    if (set.errors.length > 0 && this.mayBeInTheMaking(signature)) return;
    this.signature = signature;
    this.reported = '';
    if (this.rootError !== undefined) this.log.info('Manifests loaded again', { path: this.root });
    this.rootError = undefined;
    this.report(set.errors);
    this.notify(set);
    if (this.apply(set)) this.sink.flush();
    this.watch();
  }

  /** Editors and copies write in steps: gives them the time to finish before complaining. */
  private mayBeInTheMaking(signature: string): boolean {
    if (signature === this.reported) return false;
    this.reported = signature;
    this.soon(this.options.settleMs);
    return true;
  }

  /** Names each file that can't be used, once for the same reason. */
  private report(errors: readonly ManifestError[]): void {
    const before = new Map(this.current.errors.map((error) => [error.place.file, error.message]));
    for (const error of errors) {
      const { file, line, column } = error.place;
      const told = before.get(file);
      before.delete(file);
      if (told === error.message) continue;
      this.log.error('Failed to load manifest file, keeping its last good state', error, {
        file,
        line,
        column,
        field: error.field,
      });
    }
    for (const file of before.keys()) this.log.info('Manifest file loaded again', { file });
  }

  /** Every notice once, however often the files are loaded. */
  private notify(set: ManifestSet): void {
    const notices = new Set<string>();
    for (const warning of set.warnings) notices.add(warning);
    if (set.ignored.length > 0) notices.add(`These kinds are not needed here: ${set.ignored.join(', ')}`);
    for (const notice of notices) {
      if (this.notices.has(notice)) continue;
      if (set.warnings.includes(notice)) this.log.warn(notice);
      else this.log.info(notice);
    }
    this.notices = notices;
  }

  /** @returns whether anything was delivered */
  private apply(next: ManifestSet): boolean {
    const before = this.current;
    this.current = next;
    const sink = this.sink;
    const delivered = [
      difference(before.nodes, next.nodes, (key, object) => {
        sink.node(key, object);
      }),
      difference(before.serviceCIDRs, next.serviceCIDRs, (key, object) => {
        sink.serviceCIDR(key, object);
      }),
      difference(before.services, next.services, (key, object) => {
        sink.service(key, object);
      }),
      difference(before.endpointSlices, next.endpointSlices, (key, object) => {
        sink.endpointSlice(key, object);
      }),
    ];
    return delivered.some((count) => count > 0);
  }
}

/** @returns how many differ */
function difference<T>(
  before: ReadonlyMap<string, T>,
  next: ReadonlyMap<string, T>,
  deliver: (key: string, object: T | undefined) => void,
): number {
  let count = 0;
  for (const key of before.keys()) {
    if (next.has(key)) continue;
    deliver(key, undefined);
    count++;
  }
  for (const [key, object] of next) {
    if (isDeepStrictEqual(before.get(key), object)) continue;
    deliver(key, object);
    count++;
  }
  return count;
}
