import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOurMark, Marks } from './marks.js';

test('each service port gets a mark of its own, out of a range that says whose it is', () => {
  const marks = new Marks();
  const taken = [marks.take(), marks.take(), marks.take()];
  assert.equal(new Set(taken).size, 3);
  for (const mark of taken) assert.ok(isOurMark(mark));
  for (const other of [0, 0x4000, 0x6b700000, 0x6b800001]) assert.equal(isOurMark(other), false);
});

test('a released mark can be had again; those of an earlier process can be taken over', () => {
  const marks = new Marks();
  assert.equal(marks.claim(0x6b700001), true);
  assert.equal(marks.claim(0x6b700001), false, 'taken');
  assert.equal(marks.claim(0x4000), false, 'not ours');
  assert.equal(marks.take(), 0x6b700002);
  marks.release(0x6b700001);
  assert.equal(marks.claim(0x6b700001), true);
});
