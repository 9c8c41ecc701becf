/**
 * Notices when the configuration file gets another content: written in place, replaced by renaming, or in a ConfigMap's
 * volume, where the kubelet exchanges the symlink `..data` that the file's path leads through. Upstream watches only the inode
 * that the path led to at the start, and misses the last two (config.md section 11).
 *
 * The kernel's notifications say when to look; what counts is a hash of the content. A slow look by itself covers what no
 * notification tells: a folder that was exchanged whole, or a host without notifications to spare.
 */
import { createHash } from 'node:crypto';
import { lstatSync, readlinkSync, statSync, watch, type FSWatcher } from 'node:fs';
import { dirname, isAbsolute, join, resolve, sep } from 'node:path';
import { guarded } from '../../callbacks/guarded.js';
import { compareConfigs, type ConfigChanges } from './compare.js';
import type { Config } from '../config.js';
import { ConfigError } from '../errors.js';
import { readTextFile, type ReadFile } from '../sources.js';

export interface ConfigWatchOptions {
  /** The configuration in force. */
  readonly current: Config;
  /** Loads the configuration anew; the file is to be read with `read`. @throws ConfigError */
  readonly load: (read: ReadFile) => Config;
  /** The content is another one. `changes` may be empty: a comment, or a default that is now written out. */
  readonly onChange: (config: Config, changes: ConfigChanges) => void;
  /** The new content can't be used, or there is none; told once per content. The configuration in force stays. */
  readonly onError: (error: ConfigError) => void;
  /** How long notifications have to be silent before the file is read, ms: writing takes a moment. */
  readonly settleMs?: number;
  /** How often the file is read without a notification, ms. */
  readonly pollMs?: number;
}

interface WatchedFolder {
  readonly watcher: FSWatcher;
  /** Device and inode: a folder of the same name may be another one. */
  readonly identity: string;
  names: ReadonlySet<string>;
}

export class ConfigFileWatcher {
  private readonly path: string;
  private readonly folders = new Map<string, WatchedFolder>();
  private current: Config;
  /** Of the content last looked at; undefined: not looked yet. */
  private hash: string | undefined;
  private settling: NodeJS.Timeout | undefined;
  private polling: NodeJS.Timeout | undefined;

  /** @param path of the file, as --config has it */
  constructor(
    path: string,
    private readonly options: ConfigWatchOptions,
  ) {
    this.path = resolve(path);
    this.current = options.current;
  }

  /** Watches until `close`, and looks at once: the file may have changed since `current` was read. */
  start(): void {
    const look = guarded('look at the configuration file', () => {
      this.check();
    });
    this.polling = setInterval(look, this.options.pollMs ?? 10_000).unref();
    look();
  }

  close(): void {
    clearInterval(this.polling);
    clearTimeout(this.settling);
    for (const { watcher } of this.folders.values()) watcher.close();
    this.folders.clear();
  }

  /** Looks now, and calls back when the content is another one. */
  check(): void {
    clearTimeout(this.settling);
    this.settling = undefined;
    // First, so that what happens after the reading is notified.
    this.watchFolders();
    const content = this.read();
    const hash = typeof content === 'string' ? digest(content) : `unreadable: ${content.message}`;
    if (hash === this.hash) return;
    const first = this.hash === undefined;
    this.hash = hash;
    let next: Config;
    try {
      next = this.options.load(typeof content === 'string' ? () => content : fail(content));
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.options.onError(error);
      return;
    }
    const changes = compareConfigs(this.current, next);
    this.current = next;
    if (!first || changes.changes.length > 0) this.options.onChange(next, changes);
  }

  private read(): string | Error {
    try {
      return readTextFile(this.path);
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  /** Watches the folders that the path leads through now, and no others. */
  private watchFolders(): void {
    const wanted = foldersOf(this.path);
    for (const [folder, { watcher, identity }] of this.folders) {
      if (wanted.has(folder) && identityOf(folder) === identity) continue;
      watcher.close();
      this.folders.delete(folder);
    }
    for (const [folder, names] of wanted) {
      const watched = this.folders.get(folder);
      if (watched === undefined) this.watchFolder(folder, names);
      else watched.names = names;
    }
  }

  private watchFolder(folder: string, names: ReadonlySet<string>): void {
    const identity = identityOf(folder);
    if (identity === undefined) return;
    let watcher: FSWatcher;
    try {
      watcher = watch(
        folder,
        { persistent: false },
        guarded('follow the configuration file', (_event: string, name: string | null) => {
          // A folder that goes away itself comes with its own name.
          if (name === null || watched.names.has(name) || folder.endsWith(sep + name)) this.settle();
        }),
      );
    } catch {
      // Gone this moment, or the host has no notifications to spare: the slow look remains.
      return;
    }
    const watched: WatchedFolder = { watcher, identity, names };
    watcher.on('error', () => {
      watcher.close();
      if (this.folders.get(folder) === watched) this.folders.delete(folder);
    });
    this.folders.set(folder, watched);
  }

  private settle(): void {
    clearTimeout(this.settling);
    this.settling = setTimeout(
      guarded('look at the configuration file', () => {
        this.check();
      }),
      this.options.settleMs ?? 200,
    ).unref();
  }
}

const digest = (content: string): string => createHash('sha256').update(content).digest('hex');

const fail =
  (error: Error): ReadFile =>
  () => {
    throw error;
  };

function identityOf(folder: string): string | undefined {
  try {
    const stats = statSync(folder, { throwIfNoEntry: false });
    return stats === undefined ? undefined : `${stats.dev}:${stats.ino}`;
  } catch {
    // Not readable (EACCES), or symlinks in a circle (ELOOP): the slow look remains.
    return undefined;
  }
}

/** As many as the kernel follows in one path. */
const mostLinks = 40;

/**
 * The folders in which something decides where the path leads, each with the names that decide: the file, and every symlink on
 * the way to it.
 */
export function foldersOf(path: string): ReadonlyMap<string, ReadonlySet<string>> {
  const found = new Map<string, Set<string>>();
  const note = (folder: string, name: string): void => {
    const names = found.get(folder) ?? new Set();
    found.set(folder, names.add(name));
  };
  const names = path.split(sep).filter((name) => name !== '');
  let folder: string = sep;
  let links = 0;
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    if (name === '.') continue;
    if (name === '..') {
      folder = dirname(folder);
      continue;
    }
    const here = join(folder, name);
    const stats = lstat(here);
    if (names.length === 0 || stats === undefined) note(folder, name);
    if (stats === undefined) break;
    if (!stats.isSymbolicLink()) {
      folder = here;
      continue;
    }
    note(folder, name);
    if (++links > mostLinks) break;
    const target = readlink(here);
    if (target === undefined) break;
    if (isAbsolute(target)) folder = sep;
    names.unshift(...target.split(sep).filter((part) => part !== ''));
  }
  return found;
}

function readlink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Replaced by something else this moment.
    return undefined;
  }
}

function lstat(path: string): ReturnType<typeof lstatSync> | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
