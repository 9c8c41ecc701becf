/** README.md shows the files of examples/, and one for every entry of the package. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const examples = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'));
const sourceOf = (name: string): string => readFileSync(join(root, 'examples', name), 'utf8');

test('the code blocks are the files', () => {
  const blocks = [...readme.matchAll(/^```ts\n\/\/ examples\/(\S+)\n([^]*?)^```$/gm)];
  for (const [, name = '', code] of blocks) assert.equal(code, sourceOf(name), `examples/${name}`);
  assert.deepEqual(blocks.map(([, name]) => name).sort(), examples.sort());
  assert.equal(blocks.length, [...readme.matchAll(/^```ts$/gm)].length, 'a block without its file');
});

test('every entry of the package has an example', () => {
  const { name, exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    readonly name: string;
    readonly exports: Readonly<Record<string, string>>;
  };
  const sources = examples.map(sourceOf).join('\n');
  for (const entry of Object.keys(exports)) {
    const specifier = name + entry.slice(1);
    assert.ok(sources.includes(`'${specifier}'`), `no example imports ${specifier}`);
    assert.ok(
      readme.includes(entry === '.' ? `\`${specifier}\`` : `\`${entry.slice(1)}\``),
      `README.md: ${entry}`,
    );
  }
});
