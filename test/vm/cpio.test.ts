import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpio, fileMode, folderMode } from './cpio.js';

test('entries are headed by hexadecimal fields, and names and contents padded to 4 bytes', () => {
  const archive = cpio([
    { path: 'd', mode: folderMode, content: Buffer.alloc(0) },
    { path: 'd/five', mode: fileMode, content: Buffer.from('12345') },
  ]);
  const header = (inode: string, mode: string, size: string, name: string): string =>
    `070701${inode}${mode}${'0'.repeat(16)}00000001${'0'.repeat(8)}${size}${'0'.repeat(32)}${name}${'0'.repeat(8)}`;
  const text = [
    `${header('00000001', '000041ed', '00000000', '00000002')}d\x00`,
    `${header('00000002', '000081a4', '00000005', '00000007')}d/five\x00\x00\x00\x0012345\x00\x00\x00`,
    `${header('00000003', '00000000', '00000000', '0000000b')}TRAILER!!!\x00\x00\x00\x00`,
  ].join('');
  assert.equal(archive.toString('latin1'), text);
});
