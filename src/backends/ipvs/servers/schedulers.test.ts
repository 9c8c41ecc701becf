import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingScheduler, schedulerNamed, schedulers } from './schedulers.js';

test('a scheduler whose module is missing: which one, and where it comes from', () => {
  assert.match(missingScheduler('lblcr'), /modprobe ip_vs_lblcr.*linux-image.*kernel-modules/);
});

test('a scheduler that nobody knows: what there is', () => {
  const text = missingScheduler('roundrobin');
  assert.match(text, /^there is no IPVS scheduler "roundrobin"; Linux has rr, wrr, lc, /);
  for (const name of Object.keys(schedulers)) assert.ok(text.includes(` ${name}`));
});

test('one that is newer than this program is plain', () => {
  assert.deepEqual(schedulerNamed('next'), { title: 'next', flags: 0, drains: true });
});
