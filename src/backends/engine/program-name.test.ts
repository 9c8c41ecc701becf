import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { programName } from './program-name.js';

const rows: [what: string, comm: string, cmdline: string, name: string][] = [
  ['a program', 'x', '/usr/sbin/x\0-f\0rules\0', 'x (pid 7, /usr/sbin/x)'],
  [
    'a script',
    'x',
    '/usr/bin/python3\0-s\0/usr/sbin/x\0--key=abc\0',
    'x (pid 7, /usr/bin/python3 /usr/sbin/x)',
  ],
  ['arguments may be secret', 'x', 'x\0--token\0abc\0', 'x (pid 7, x)'],
  ['control characters', 'x', '/a\nb\0', 'x (pid 7, /a?b)'],
  ['another process of this number', 'y', '/usr/sbin/y\0', 'x (pid 7)'],
  ['one that has ended', 'x', '', 'x (pid 7)'],
  ['a long path', 'x', `/${'a'.repeat(500)}\0`, `x (pid 7, /${'a'.repeat(119)})`],
];

for (const [what, comm, cmdline, name] of rows) {
  test(`name of a program: ${what}`, () => {
    const procfs = mkdtempSync(join(tmpdir(), 'procfs-'));
    try {
      mkdirSync(join(procfs, '7'));
      writeFileSync(join(procfs, '7', 'comm'), `${comm}\n`);
      writeFileSync(join(procfs, '7', 'cmdline'), cmdline);
      assert.equal(programName({ processId: 7, processName: 'x' }, procfs), name);
      assert.equal(programName({ processId: 8, processName: 'nft' }, procfs), 'nft (pid 8)');
    } finally {
      rmSync(procfs, { recursive: true });
    }
  });
}
