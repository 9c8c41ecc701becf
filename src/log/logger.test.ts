import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger, errorText, type LogSettings, type RootLogger } from './logger.js';

const at = new Date(2026, 10, 21, 13, 4, 5, 6).getTime();

function collect(settings: Partial<LogSettings> = {}): {
  info: string[];
  error: string[];
  log: RootLogger;
} {
  const info: string[] = [];
  const error: string[] = [];
  const streams = {
    info: (text: string): void => void info.push(text),
    error: (text: string): void => void error.push(text),
  };
  const log = createLogger({ format: 'text', verbosity: 0, ...settings, streams, now: () => at });
  return { info, error, log };
}

const json = (line: string | undefined): Record<string, unknown> =>
  JSON.parse(line ?? '') as Record<string, unknown>;

describe('text lines look like klog', () => {
  test('the whole layout', () => {
    const { error, log } = collect();
    log
      .named('nftables')
      .warn('a "quoted" thing', { count: 3, names: ['a', 'b'], problem: new Error('x'), none: undefined });
    assert.match(
      error[0] ?? '',
      /^W1121 13:04:05\.006000 +\d+ logger\.test\.js:\d+\] "a \\"quoted\\" thing" logger="nftables" count=3 names=\["a","b"\] problem="x" none=null\n$/,
    );
    assert.equal(error[0]?.slice(22, 29), String(process.pid).padStart(7));
  });

  test('severities, and errors before the rest', () => {
    const { error, log } = collect({ verbosity: 1 });
    log.info('i', { line: 'one\ntwo' });
    log.error('e', new Error('outer', { cause: new Error('inner') }), { object: 'ns/a' });
    log.error('without');
    log.debug(1, 'd');
    assert.deepEqual(
      error.map((line) => line.replace(/^(.).*?\] /, '$1 ')),
      ['I "i" line="one\\ntwo"\n', 'E "e" err="outer: inner" object="ns/a"\n', 'E "without"\n', 'I "d"\n'],
    );
  });

  test('a plain line has no quotes', () => {
    const { error, log } = collect({ verbosity: 1 });
    log.plain(1, 'FLAG: --v="1"');
    log.plain(2, 'hidden');
    assert.match(error.join(''), /^I1121 \S+ +\d+ logger\.test\.js:\d+\] FLAG: --v="1"\n$/);
  });

  test('the line is that of the caller', () => {
    const { error, log } = collect();
    log.info('first');
    log.named('x').error('second');
    const lines = error.map((line) => Number(/logger\.test\.js:(\d+)\]/.exec(line)?.[1]));
    assert.equal(lines[1], (lines[0] ?? 0) + 1);
  });
});

describe('json lines', () => {
  test("have upstream's members in upstream's order", () => {
    const { error, log } = collect({ format: 'json', verbosity: 3 });
    log.named('sync').debug(3, 'done', { ipFamily: 'IPv4', n: 2 });
    const record = json(error[0]);
    assert.deepEqual(Object.keys(record), ['ts', 'logger', 'caller', 'msg', 'v', 'ipFamily', 'n']);
    assert.match(String(record['caller']), /^log\/logger\.test\.js:\d+$/);
    assert.deepEqual([record['ts'], record['v'], record['msg']], [at, 3, 'done']);
  });

  test('errors carry err and no v', () => {
    const { error, log } = collect({ format: 'json' });
    log.error('failed', new Error('outer', { cause: new Error('inner') }), { object: 'ns/a', msg: 'mine' });
    log.warn('careful');
    const record = json(error[0]);
    assert.deepEqual(Object.keys(record), ['ts', 'caller', 'msg', 'severity', 'err', 'object', 'msg_']);
    assert.deepEqual([record['severity'], record['err']], ['error', 'outer: inner']);
    assert.equal(json(error[1])['severity'], 'warning');
  });
});

describe('verbosity', () => {
  const shown = (settings: Partial<LogSettings>, room = ''): number[] => {
    const { error, log } = collect({ format: 'json', ...settings });
    const logger = room === '' ? log : log.named(room);
    for (const level of [1, 2, 3, 4, 5]) logger.debug(level, 'x');
    return error.map((line) => Number(json(line)['v']));
  };

  test('decides about debug lines', () => {
    assert.deepEqual(shown({ verbosity: 0 }), []);
    assert.deepEqual(shown({ verbosity: 2 }), [1, 2]);
  });

  test('vmodule adds to it, by source file or by logger', () => {
    const of = (filePattern: string): Partial<LogSettings> => ({
      verbosity: 1,
      vmodule: [{ filePattern, verbosity: 3 }],
    });
    assert.deepEqual(shown(of('logger.test')), [1, 2, 3]);
    assert.deepEqual(shown(of('logger*')), [1, 2, 3]);
    assert.deepEqual(shown(of('sync'), 'sync'), [1, 2, 3]);
    assert.deepEqual(shown(of('s?n*'), 'sync'), [1, 2, 3]);
    assert.deepEqual(shown(of('sync'), 'sync-loop'), [1]);
    assert.deepEqual(shown(of('(')), [1]);
    assert.deepEqual(
      shown(
        {
          verbosity: 0,
          vmodule: [
            { filePattern: 'a', verbosity: 2 },
            { filePattern: '*', verbosity: 4 },
          ],
        },
        'a',
      ),
      [1, 2],
      'the first match counts',
    );
    assert.deepEqual(shown({ verbosity: 4, vmodule: [{ filePattern: '*', verbosity: 1 }] }), [1, 2, 3, 4]);
  });

  test('can be changed while loggers are in use', () => {
    const { error, log } = collect();
    const room = log.named('sync');
    room.debug(2, 'hidden');
    log.setVerbosity(2);
    assert.equal(log.verbosity, 2);
    room.debug(2, 'shown');
    log.configure({ format: 'json', verbosity: 0, vmodule: [{ filePattern: 'sync', verbosity: 1 }] });
    room.debug(2, 'hidden');
    room.debug(1, 'shown as well');
    assert.match(error[0] ?? '', /"shown" logger="sync"\n$/);
    assert.equal(json(error[1])['msg'], 'shown as well');
    assert.equal(error.length, 2);
  });
});

describe('streams', () => {
  test('all go to the error stream', () => {
    const { info, error, log } = collect();
    log.info('a');
    log.error('b');
    assert.deepEqual([info.length, error.length], [0, 2]);
  });

  test('split: information by itself', () => {
    const { info, error, log } = collect({ splitStream: true });
    log.info('a');
    log.warn('b');
    log.error('c');
    assert.deepEqual([info.length, error.length], [1, 2]);
  });

  test('held back until the buffer is full, time is up, or it is asked for', async () => {
    const { info, error, log } = collect({ splitStream: true, infoBufferBytes: 200, flushFrequencyMs: 20 });
    log.info('a');
    log.error('b');
    assert.deepEqual([info.length, error.length], [0, 1]);
    log.info('x'.repeat(150));
    assert.equal(info.length, 1, 'full');
    assert.match(info[0] ?? '', /"a"\n.*"x+"\n$/);
    log.info('c');
    log.flush();
    assert.match(info[1] ?? '', /"c"\n$/);
    log.info('d');
    const written = (): number => info.length;
    while (written() < 3) await sleep(5);
    assert.match(info[2] ?? '', /"d"\n$/);
    log.info('e');
    log.configure({ format: 'text', verbosity: 0 });
    assert.match(info[3] ?? '', /"e"\n$/, 'other settings');
  });
});

/** Runs a program that has `log` with these settings. */
function program(settings: LogSettings, body: string): string[] {
  const logger = new URL('./logger.js', import.meta.url).href;
  const source = `import { createLogger } from ${JSON.stringify(logger)}; const log = createLogger(${JSON.stringify(settings)}); ${body}`;
  return ['--input-type=module', '-e', source];
}

test('what is held back is written when the process ends', () => {
  const settings: LogSettings = { format: 'text', verbosity: 0, splitStream: true, infoBufferBytes: 10_000 };
  const text = execFileSync(process.execPath, program(settings, "log.info('last words'); process.exit(0);"), {
    encoding: 'utf8',
  });
  assert.match(text, /"last words"\n$/);
});

test('a reader that goes away does not end the process', async () => {
  const body =
    "const lines = setInterval(() => log.info('x'.repeat(1000)), 1); setTimeout(() => process.exit(7), 500);";
  const child = spawn(process.execPath, program({ format: 'text', verbosity: 0 }, body), {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  child.stderr.once('data', () => child.stderr.destroy());
  const [code] = (await once(child, 'exit')) as [number | null];
  assert.equal(code, 7);
});

test('errorText does not repeat a cause that the message already tells', () => {
  assert.equal(errorText(new Error('open x: denied', { cause: new Error('denied') })), 'open x: denied');
  assert.equal(errorText('plain'), 'plain');
  assert.equal(errorText(undefined), 'null');
});
