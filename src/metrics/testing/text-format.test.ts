/** The reader that judges our metrics has to notice what is wrong with a text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lint, parseTextFormat } from './text-format.js';

const head = (name: string, type: string): string => `# HELP ${name} Some help\n# TYPE ${name} ${type}\n`;
const histogram = head('h', 'histogram');

const broken: [what: string, text: string, says: RegExp][] = [
  ['no line feed at the end', `${head('a', 'gauge')}a 1`, /line feed/],
  ['a blank line', `${head('a', 'gauge')}\na 1\n`, /neither comment nor sample/],
  ['TYPE without HELP', '# TYPE a gauge\na 1\n', /without its HELP/],
  ['HELP without TYPE', '# HELP a Some help\na 1\n', /without TYPE/],
  ['an unknown type', '# HELP a Some help\n# TYPE a number\na 1\n', /unknown type/],
  ['no samples', head('a', 'gauge'), /no samples/],
  ['a sample of something else', `${head('a', 'gauge')}b 1\n`, /away from its TYPE/],
  ['a family in two pieces', `${head('a', 'gauge')}a 1\n${head('a', 'gauge')}a 2\n`, /second HELP/],
  ['a series twice', `${head('a', 'gauge')}a{x="1",y="2"} 1\na{y="2",x="1"} 1\n`, /second time/],
  ['a label twice', `${head('a', 'gauge')}a{x="1",x="2"} 1\n`, /second time/],
  ['a raw quote in a label', `${head('a', 'gauge')}a{x="a"b"} 1\n`, /comma|not a label/],
  ['an unknown escape', `${head('a', 'gauge')}a{x="\\t"} 1\n`, /not an escape/],
  ['no value', `${head('a', 'gauge')}a{x="1"}\n`, /not a value/],
  ["JavaScript's Infinity", `${head('a', 'gauge')}a Infinity\n`, /not a value/],
  ['a negative counter', `${head('a_total', 'counter')}a_total -1\n`, /a counter of -1/],
  ['a histogram without count', `${histogram}h_bucket{le="+Inf"} 1\nh_sum 1\n`, /no _count/],
  ['a histogram without +Inf', `${histogram}h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n`, /no bucket \+Inf/],
  [
    'a histogram that shrinks',
    `${histogram}h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n`,
    /less than the one before/,
  ],
  [
    'a histogram out of order',
    `${histogram}h_bucket{le="2"} 1\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n`,
    /out of order/,
  ],
  [
    'a histogram whose count is another',
    `${histogram}h_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n`,
    /_count is not/,
  ],
];
for (const [what, text, says] of broken) {
  test(`refused: ${what}`, () => {
    assert.throws(() => parseTextFormat(text), says);
  });
}

test('accepted: what the format allows', () => {
  const text = `# HELP a With \\\\ and \\n\n# TYPE a gauge\na{x="q\\"u"} +Inf\na{x=""} 1.5e-7\na -3\n`;
  const family = parseTextFormat(text).get('a');
  assert.equal(family?.help, 'With \\ and \n');
  assert.deepEqual(
    family.samples.map(({ labels, value }) => [labels['x'], value]),
    [
      ['q"u', Infinity],
      ['', 1.5e-7],
      [undefined, -3],
    ],
  );
});

const complaints: [name: string, type: string, says: RegExp | undefined][] = [
  ['a_total', 'counter', undefined],
  ['a', 'counter', /does not end with _total/],
  ['a_total', 'gauge', /not a counter/],
  ['a_count', 'gauge', /like a part of one/],
  ['aBc', 'gauge', /camelCase/],
  ['a_milliseconds', 'gauge', /base unit/],
  ['a_gauge', 'gauge', /type is part/],
  ['a_seconds', 'gauge', undefined],
];
for (const [name, type, says] of complaints) {
  test(`linter, ${type} ${name}: ${says === undefined ? 'nothing' : String(says)}`, () => {
    const found = lint(parseTextFormat(`${head(name, type)}${name} 1\n`).values());
    assert.equal(found.length, says === undefined ? 0 : 1);
    if (says !== undefined) assert.match(found[0] ?? '', says);
  });
}
