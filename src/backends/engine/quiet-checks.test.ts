/** Checks come soon, one at a time, and not too often. */
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { IPFamily } from '../../model/types.js';
import { QuietChecks } from './quiet-checks.js';

function begin(t: { after: (cleanUp: () => void) => void }) {
  const asked: IPFamily[] = [];
  let now = 0;
  mock.timers.enable({ apis: ['setTimeout'] });
  const clock = mock.method(performance, 'now', () => now);
  const checks = new QuietChecks(['IPv4', 'IPv6'], (family) => asked.push(family));
  t.after(() => {
    checks.close();
    clock.mock.restore();
    mock.timers.reset();
  });
  const pass = (milliseconds: number): IPFamily[] => {
    now += milliseconds;
    mock.timers.tick(milliseconds);
    return asked.splice(0);
  };
  return { checks, pass };
}

test('both families are checked, once, and soon', (t) => {
  const { checks, pass } = begin(t);
  assert.deepEqual(pass(60_000), []);
  checks.request();
  checks.request();
  assert.deepEqual(pass(10), ['IPv4', 'IPv6']);
  for (const family of ['IPv4', 'IPv6'] as const) {
    assert.equal(checks.begin(family), true);
    checks.end(family, 3);
  }
  assert.deepEqual(pass(60_000), []);
  assert.equal(checks.begin('IPv4'), false, 'one without a reason');
});

test('the next one comes after a second, and after twenty times what the last one took', (t) => {
  const { checks, pass } = begin(t);
  for (const [tookMs, restMs] of [
    [3, 1000],
    [200, 4000],
  ] as const) {
    checks.request();
    pass(60_000);
    for (const family of ['IPv4', 'IPv6'] as const) {
      checks.begin(family);
      checks.end(family, tookMs);
    }
    checks.request();
    assert.deepEqual(pass(restMs - 1), []);
    assert.deepEqual(pass(2), ['IPv4', 'IPv6']);
    for (const family of ['IPv4', 'IPv6'] as const) checks.begin(family);
    for (const family of ['IPv4', 'IPv6'] as const) checks.end(family, 1);
  }
});

test('what is missed while a family is compared is checked afterwards, without a rest', (t) => {
  const { checks, pass } = begin(t);
  checks.request();
  assert.equal(checks.begin('IPv4'), true, 'the comparison finds that, too');
  checks.request();
  assert.deepEqual(pass(5000), ['IPv6']);
  checks.end('IPv4');
  assert.deepEqual(pass(10), ['IPv4']);
});

test('one that came at the wrong time comes again', (t) => {
  const { checks, pass } = begin(t);
  checks.request();
  assert.deepEqual(pass(10), ['IPv4', 'IPv6']);
  checks.begin('IPv6');
  checks.end('IPv6', 1);
  checks.postpone('IPv4');
  assert.deepEqual(pass(999), []);
  assert.deepEqual(pass(2), ['IPv4']);
});

test('none comes after the end', (t) => {
  const { checks, pass } = begin(t);
  checks.request();
  checks.close();
  checks.request();
  assert.deepEqual(pass(60_000), []);
});
