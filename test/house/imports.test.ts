/**
 * The layout of the sources is the architecture: files do not import each other in circles, and docs/architecture.md shows
 * which folder imports which others as it is.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** Any of 'import … from', 'export … from' and import(), types included. */
const specifiers = /(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g;
const isTest = (file: string): boolean => /\.test\.ts$|(^|\/)testing\//.test(file);

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => posix.join(folder, name));
}

const files = [...sources('src'), ...sources('packages/netlink/src')].filter((file) => !isTest(file));
const imports = new Map(
  files.map((file) => [
    file,
    [...readFileSync(join(root, file), 'utf8').matchAll(specifiers)].map(([, specifier = '']) =>
      specifier.startsWith('.')
        ? posix.join(posix.dirname(file), specifier).replace(/\.js$/, '.ts')
        : specifier,
    ),
  ]),
);

/** Groups of files of which each reaches each other (Tarjan), of more than one file. */
function circles(): string[][] {
  const found: string[][] = [];
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const visit = (file: string): number => {
    const mine = index.size;
    let lowest = mine;
    index.set(file, mine);
    stack.push(file);
    for (const next of imports.get(file) ?? []) {
      if (!imports.has(next)) continue;
      if (!index.has(next)) lowest = Math.min(lowest, visit(next));
      else if (stack.includes(next)) lowest = Math.min(lowest, index.get(next) ?? mine);
    }
    low.set(file, lowest);
    if (lowest === mine) {
      const group = stack.splice(stack.indexOf(file));
      if (group.length > 1) found.push(group);
    }
    return lowest;
  };
  for (const file of files) if (!index.has(file)) visit(file);
  return found;
}

test('no file imports itself, over others', () => {
  assert.ok(files.length > 300, `${String(files.length)} files`);
  assert.deepEqual(circles(), []);
});

/** The name of a folder of the table in docs/architecture.md; undefined: a package of others. */
function roomOf(file: string): string | undefined {
  if (file.startsWith('@kube-proxy-ts/netlink') || file.startsWith('packages/netlink/')) return 'netlink';
  return /^src\/([a-z]+)\//.exec(file)?.[1];
}

interface Row {
  readonly rooms: readonly string[];
  readonly mayImport: string;
}

function architecture(): Row[] {
  const text = readFileSync(join(root, 'docs/architecture.md'), 'utf8');
  const rows = [...text.matchAll(/^\| ((?:`(?:src|packages)\/[a-z]+`(?:, )?)+) \| .* \| ([^|]*) \|$/gm)];
  return rows.map(([, folders = '', mayImport = '']) => ({
    rooms: [...folders.matchAll(/`(?:src|packages)\/([a-z]+)`/g)].map(([, room = '']) => room),
    mayImport,
  }));
}

test('docs/architecture.md has every folder, and what it imports', () => {
  const rows = architecture();
  const rooms = readdirSync(join(root, 'src'));
  assert.deepEqual(rows.flatMap((row) => row.rooms).sort(), [...rooms, 'netlink'].sort());
  /** Rows that say so of themselves. */
  const everybodys = new Set(
    readFileSync(join(root, 'docs/architecture.md'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('Anybody may import'))
      .flatMap((line) => [...line.matchAll(/`src\/([a-z]+)`/g)].map(([, room = '']) => room)),
  );
  const wrong = rows.flatMap(({ rooms: from, mayImport }) => {
    if (/^everything/.test(mayImport)) return [];
    const documented = new Set([...mayImport.matchAll(/`([a-z]+)`/g)].map(([, room = '']) => room));
    const actual = new Set<string>();
    for (const [file, targets] of imports) {
      if (!from.includes(roomOf(file) ?? '')) continue;
      for (const target of targets) {
        const room = roomOf(target);
        if (room !== undefined && !from.includes(room) && !everybodys.has(room)) actual.add(room);
      }
    }
    const unsaid = [...actual].filter((room) => !documented.has(room));
    const unused = [...documented].filter((room) => !actual.has(room));
    return unsaid.length + unused.length === 0 ? [] : [{ from, unsaid, unused }];
  });
  assert.deepEqual(wrong, []);
});
