import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bar, crop, Display } from './display.js';

function stage(isTTY: boolean): {
  isTTY: boolean;
  columns: number;
  written: string;
  write(text: string): void;
} {
  return {
    isTTY,
    columns: 20,
    written: '',
    write(text) {
      this.written += text;
    },
  };
}

test('a line is cut to its width, and its colours end', () => {
  const cases: [string, number, string][] = [
    ['short', 10, 'short'],
    ['too long', 3, 'too'],
    ['\x1b[31mred\x1b[39m', 3, '\x1b[31mred\x1b[39m'],
    ['\x1b[31mtoo long\x1b[39m', 3, '\x1b[31mtoo\x1b[39m'],
    ['', 3, ''],
  ];
  for (const [line, width, expected] of cases) assert.equal(crop(line, width), expected);
});

test('a bar fills its width by eighths', () => {
  const cases: [number, string][] = [
    [0, '    '],
    [1 / 32, '▏   '],
    [0.5, '██  '],
    [1, '████'],
    [2, '████'],
    [-1, '    '],
  ];
  for (const [share, expected] of cases) assert.equal(bar(share, 4), expected);
});

test('on a terminal the picture is redrawn in place, below the lines that stay', () => {
  const terminal = stage(true);
  const display = new Display(terminal, { NO_COLOR: '1' });
  terminal.written = '';
  display.show(['one', 'two'], '');
  display.say('a line');
  assert.equal(
    terminal.written,
    'one\x1b[K\ntwo\x1b[K\n\x1b[J' + '\x1b[2Aa line\x1b[K\none\x1b[K\ntwo\x1b[K\n\x1b[J',
  );
});

test('a pipe gets plain lines, of the picture one a second', () => {
  const pipe = stage(false);
  let time = 0;
  const display = new Display(pipe, {}, () => time);
  display.say(display.colour.red('a line'));
  for (; time <= 1000; time += 100) display.show(['picture'], `at ${time}`);
  display.close();
  assert.equal(pipe.written, 'a line\nat 0\nat 1000\n');
});

test('NO_COLOR is honoured, unless it is empty', () => {
  const paint = (env: Record<string, string>): string => new Display(stage(true), env).colour.red('x');
  assert.equal(paint({}), '\x1b[31mx\x1b[39m');
  assert.equal(paint({ NO_COLOR: '' }), '\x1b[31mx\x1b[39m');
  assert.equal(paint({ NO_COLOR: '1' }), 'x');
});
