import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger, errorText } from './logger.js';

function collect(
  format: 'text' | 'json',
  verbosity = 0,
): { lines: string[]; log: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  const at = new Date(2026, 10, 21, 13, 4, 5, 6).getTime();
  const log = createLogger({ format, verbosity, write: (line) => lines.push(line), now: () => at });
  return { lines, log };
}

test('text lines look like klog', () => {
  const { lines, log } = collect('text');
  log.named('nftables').warn('a "quoted" thing', { count: 3, names: ['a', 'b'], error: new Error('x') });
  assert.match(
    lines[0] ?? '',
    /^W1121 13:04:05\.006000 +\d+ nftables\] "a \\"quoted\\" thing" count=3 names=\["a","b"\] error="x"\n$/,
  );
});

test('json lines parse and carry the error', () => {
  const { lines, log } = collect('json');
  log.error('failed', new Error('outer', { cause: new Error('inner') }), { object: 'ns/a' });
  const record = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.equal(record['severity'], 'error');
  assert.equal(record['err'], 'outer: inner');
  assert.equal(record['object'], 'ns/a');
});

test('verbosity decides about debug lines', () => {
  const { lines, log } = collect('text', 2);
  log.debug(2, 'shown');
  log.debug(3, 'hidden');
  assert.equal(lines.length, 1);
});

test('errorText does not repeat a cause that the message already tells', () => {
  assert.equal(errorText(new Error('open x: denied', { cause: new Error('denied') })), 'open x: denied');
  assert.equal(errorText('plain'), 'plain');
});
