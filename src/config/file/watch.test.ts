/** Every way in which a configuration file gets another content, noticed; nothing else is. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { patiently } from '../../../test/patience.js';
import { withoutRights } from '../../../test/rights.js';
import { parseCommandLine } from '../flags/command-line.js';
import { loadConfig, type Config } from '../config.js';
import type { ConfigError } from '../errors.js';
import { configApiVersion, configKind } from '../fields.js';
import { ConfigFileWatcher, foldersOf } from './watch.js';

const root = mkdtempSync(join(tmpdir(), 'kpp-watch-'));
after(() => {
  rmSync(root, { recursive: true, force: true });
});
let folders = 0;
function newFolder(): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  return folder;
}

const yaml = (verbosity: number): string =>
  `apiVersion: ${configApiVersion}\nkind: ${configKind}\nlogging: { verbosity: ${verbosity} }\n`;

/** What a watcher told: verbosities, and messages of errors. */
interface Seen {
  readonly told: (number | string)[];
  readonly changes: string[];
  readonly watcher: ConfigFileWatcher;
  /** Waits until this has been told, and nothing else. */
  readonly expect: (...all: (number | RegExp)[]) => Promise<void>;
}

/** @param pollMs long enough that only notifications can be what is noticed, unless the poll is what is tested */
function watchFile(context: TestContext, path: string, pollMs = 3_600_000, before?: Config): Seen {
  const commandLine = parseCommandLine([`--config=${path}`]);
  const told: Seen['told'] = [];
  const changes: string[] = [];
  const watcher = new ConfigFileWatcher(path, {
    current: before ?? loadConfig(commandLine),
    load: (read) => loadConfig(commandLine, read),
    onChange: (config, what) => {
      told.push(config.logging.verbosity);
      changes.push(what.changes.map((change) => change.path).join());
    },
    onError: (error: ConfigError) => told.push(error.message),
    settleMs: 20,
    pollMs,
  });
  context.after(() => {
    watcher.close();
  });
  watcher.start();
  const expect: Seen['expect'] = async (...all) => {
    const deadline = Date.now() + patiently(10_000);
    while (told.length < all.length && Date.now() < deadline) await sleep(5);
    await sleep(60);
    assert.equal(told.length, all.length, JSON.stringify(told));
    all.forEach((expected, index) => {
      if (typeof expected === 'number') assert.equal(told[index], expected);
      else assert.match(String(told[index]), expected);
    });
  };
  return { told, changes, watcher, expect };
}

/** A ConfigMap's volume as the kubelet lays it out; `write` exchanges the content at once. */
function configMap(): { path: string; write: (content: string) => void } {
  const folder = newFolder();
  let versions = 0;
  const write = (content: string): void => {
    const version = `..2026_01_01_00_00_0${versions++}.123`;
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, 'config.conf'), content);
    symlinkSync(version, join(folder, '..data_tmp'));
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'));
    if (versions > 1) {
      rmSync(join(folder, `..2026_01_01_00_00_0${versions - 2}.123`), { recursive: true });
    }
  };
  write(yaml(1));
  symlinkSync(join('..data', 'config.conf'), join(folder, 'config.conf'));
  return { path: join(folder, 'config.conf'), write };
}

describe('another content is noticed', () => {
  test('written in place, again and again', async (context) => {
    const path = join(newFolder(), 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect, changes } = watchFile(context, path);
    writeFileSync(path, yaml(2));
    await expect(2);
    writeFileSync(path, yaml(3));
    await expect(2, 3);
    assert.deepEqual(changes, ['logging.verbosity', 'logging.verbosity']);
  });

  test('replaced by renaming, again and again', async (context) => {
    const folder = newFolder();
    const path = join(folder, 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect } = watchFile(context, path);
    for (const verbosity of [2, 3]) {
      writeFileSync(join(folder, 'next'), yaml(verbosity));
      renameSync(join(folder, 'next'), path);
      await expect(...[2, 3].slice(0, verbosity - 1));
    }
  });

  test("a ConfigMap's volume, again and again", async (context) => {
    const { path, write } = configMap();
    const { expect } = watchFile(context, path);
    write(yaml(2));
    await expect(2);
    write(yaml(3));
    await expect(2, 3);
    write(yaml(4));
    await expect(2, 3, 4);
  });

  test('the target of a symlink in another folder, and the symlink', async (context) => {
    const [here, there] = [newFolder(), newFolder()];
    const path = join(here, 'proxy.yaml');
    writeFileSync(join(there, 'a'), yaml(1));
    writeFileSync(join(there, 'b'), yaml(5));
    symlinkSync(join(there, 'a'), path);
    const { expect } = watchFile(context, path);
    writeFileSync(join(there, 'a'), yaml(2));
    await expect(2);
    unlinkSync(path);
    symlinkSync(join(there, 'b'), path);
    await expect(2, 5);
    writeFileSync(join(there, 'a'), yaml(3));
    writeFileSync(join(there, 'b'), yaml(6));
    await expect(2, 5, 6);
  });

  test('deleted and made again', async (context) => {
    const path = join(newFolder(), 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect } = watchFile(context, path);
    unlinkSync(path);
    await expect(/cannot read .*proxy\.yaml: ENOENT/);
    writeFileSync(path, yaml(2));
    await expect(/ENOENT/, 2);
  });

  test('the folder exchanged for another, by the slow look', async (context) => {
    const folder = newFolder();
    const path = join(folder, 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect } = watchFile(context, path, 30);
    const other = newFolder();
    writeFileSync(join(other, 'proxy.yaml'), yaml(2));
    renameSync(folder, `${folder}-old`);
    renameSync(other, folder);
    await expect(2);
    writeFileSync(path, yaml(3));
    await expect(2, 3);
  });

  test('a change between the first reading and the start', async (context) => {
    const path = join(newFolder(), 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const before = loadConfig(parseCommandLine([`--config=${path}`]));
    writeFileSync(path, yaml(2));
    await watchFile(context, path, 3_600_000, before).expect(2);
  });
});

describe('what is no other content', () => {
  test('the same content written again, other files of the folder', async (context) => {
    const folder = newFolder();
    const path = join(folder, 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect, watcher } = watchFile(context, path);
    writeFileSync(path, yaml(1));
    writeFileSync(join(folder, 'other.yaml'), yaml(2));
    await sleep(100);
    watcher.check();
    await expect();
  });

  test('a comment: told, without changes', async (context) => {
    const path = join(newFolder(), 'proxy.yaml');
    writeFileSync(path, yaml(1));
    const { expect, changes } = watchFile(context, path);
    writeFileSync(path, `${yaml(1)}# comment\n`);
    await expect(1);
    assert.deepEqual(changes, ['']);
  });
});

test('a content that can not be used is told once, and the next good one is taken', async (context) => {
  const path = join(newFolder(), 'proxy.yaml');
  writeFileSync(path, yaml(1));
  const { expect, watcher } = watchFile(context, path);
  writeFileSync(path, `${yaml(1)}mode: magic\n`);
  await expect(/proxy\.yaml:4: mode: "magic": must be/);
  watcher.check();
  await expect(/magic/);
  writeFileSync(path, yaml(2));
  await expect(/magic/, 2);
});

test('a path that may not be followed (EACCES) or leads in a circle (ELOOP) is told once, and its end is seen', async (context) => {
  const above = newFolder();
  const folder = join(above, 'etc');
  mkdirSync(folder);
  const path = join(folder, 'proxy.yaml');
  writeFileSync(path, yaml(1));
  const { expect } = watchFile(context, path, 20);
  renameSync(folder, `${folder}2`);
  symlinkSync('etc', folder);
  await expect(/cannot read .*proxy\.yaml: ELOOP/);
  unlinkSync(folder);
  renameSync(`${folder}2`, folder);
  writeFileSync(path, yaml(2));
  await expect(/ELOOP/, 2);
  await withoutRights(above, () => expect(/ELOOP/, 2, /cannot read .*proxy\.yaml: EACCES/));
  writeFileSync(path, yaml(3));
  await expect(/ELOOP/, 2, /EACCES/, 3);
});

test('after close nothing is told', async (context) => {
  const path = join(newFolder(), 'proxy.yaml');
  writeFileSync(path, yaml(1));
  const { expect, watcher } = watchFile(context, path, 10);
  watcher.close();
  writeFileSync(path, yaml(2));
  await sleep(100);
  await expect();
});

describe('folders that decide where a path leads', () => {
  test('of a ConfigMap: that of the symlinks, and that of the file', () => {
    const { path } = configMap();
    const folder = join(path, '..');
    assert.deepEqual(
      new Map([...foldersOf(path)].filter(([name]) => name.startsWith(folder))),
      new Map([
        [folder, new Set(['config.conf', '..data'])],
        [join(folder, '..2026_01_01_00_00_00.123'), new Set(['config.conf'])],
      ]),
    );
  });

  test('of a file that is not there: where it would appear', () => {
    const folder = newFolder();
    assert.deepEqual(foldersOf(join(folder, 'a', 'b')).get(folder), new Set(['a']));
  });

  test('a circle of symlinks ends', () => {
    const folder = newFolder();
    symlinkSync('b', join(folder, 'a'));
    symlinkSync('a', join(folder, 'b'));
    assert.deepEqual(foldersOf(join(folder, 'a')).get(folder), new Set(['a', 'b']));
  });
});
