/** docs/configuration.md says what the tables say. `UPDATE_DOCS=1` writes it anew. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fieldPaths } from './fields.js';
import { flags } from './flags/flags.js';
import { withReference } from './reference.js';

const file = new URL('../../../docs/configuration.md', import.meta.url);

test('docs/configuration.md is what the tables say', () => {
  const text = readFileSync(file, 'utf8');
  const current = withReference(text);
  if (process.env['UPDATE_DOCS'] === '1') writeFileSync(file, current);
  else assert.equal(text, current, 'run UPDATE_DOCS=1 node --test dist/src/config/reference.test.js');
});

test('it has every field and every flag', () => {
  const text = readFileSync(file, 'utf8');
  for (const path of fieldPaths) assert.ok(text.includes(`| \`${path}\` |`), path);
  for (const name of flags.keys()) assert.ok(text.includes(`\`--${name}\``), name);
});

test('a document without a place for a table is refused', () => {
  assert.throws(() => withReference('# Configuration\n'), /the document has no place for "settings"/);
});
