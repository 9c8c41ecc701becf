import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributeDecoder, AttributeWriter } from '../attribute.js';
import { RULE_CASES } from './testing/rules.fixture.js';
import { SET_CASES } from './testing/sets.fixture.js';
import { canonicalExpressions, normaliseExpressions, sameExpressions, expr } from './expression/index.js';
import { RULE_RECORDINGS, SET_RECORDINGS, type Recording } from './testing/recordings.fixture.js';
import { decodeRule, encodeRule, type RuleInfo } from './objects/rule.js';
import { decodeSet, encodeSet, sameSetDefinition, type SetInfo } from './objects/set.js';

function decoder(bytes: Buffer): AttributeDecoder {
  return new AttributeDecoder(bytes, 0, bytes.length, 'test');
}

function rule(bytes: Buffer): RuleInfo {
  const d = decoder(bytes);
  const decoded = decodeRule(d);
  d.finish();
  return decoded;
}

function set(bytes: Buffer): SetInfo {
  const d = decoder(bytes);
  const decoded = decodeSet(d);
  d.finish();
  return decoded;
}

function recorded(recordings: readonly Recording[], family: string, text: string): Recording {
  const found = recordings.find((recording) => recording.family === family && recording.text === text);
  assert.ok(found, `no recording of ${text}`);
  return found;
}

for (const { family, text, expressions } of RULE_CASES) {
  test(`rule ${family}: ${text}`, () => {
    const recording = recorded(RULE_RECORDINGS, family, text);
    for (const source of ['nft', 'kernel'] as const) {
      const decoded = rule(Buffer.from(recording[source], 'hex'));
      assert.deepEqual(decoded.expressions, normaliseExpressions(expressions), `as ${source} writes it`);
    }
    const writer = new AttributeWriter();
    encodeRule(writer, 't', { chain: 'c', expressions, comment: 'why' });
    const again = rule(writer.bytes());
    assert.deepEqual(again.expressions, normaliseExpressions(expressions));
    assert.equal(again.comment, 'why');
    assert.equal(again.chain, 'c');
  });
}

for (const { family, text, definition } of SET_CASES) {
  test(`set ${family}: ${text}`, () => {
    const recording = recorded(SET_RECORDINGS, family, text);
    const writer = new AttributeWriter();
    encodeSet(writer, 't', definition, 1);
    const ours = set(writer.bytes());
    for (const source of ['nft', 'kernel'] as const) {
      const theirs = set(Buffer.from(recording[source], 'hex'));
      assert.ok(sameSetDefinition(definition, theirs), `as ${source} writes it`);
      const known = { handle: 0n, count: undefined };
      assert.deepEqual({ ...ours, ...known }, { ...theirs, ...known });
    }
  });
}

test('every recording has its case', () => {
  assert.equal(RULE_CASES.length, RULE_RECORDINGS.length);
  assert.equal(SET_CASES.length, SET_RECORDINGS.length);
});

test('all rules differ from each other', () => {
  assert.equal(new Set(RULE_CASES.map((c) => canonicalExpressions(c.expressions))).size, RULE_CASES.length);
});

test('counter values make no difference, counters do', () => {
  const verdict = expr.verdict({ verdict: 'accept' });
  assert.ok(sameExpressions([expr.counter(3n, 4n), verdict], [expr.counter(), verdict]));
  assert.ok(!sameExpressions([expr.counter(), verdict], [verdict]));
});

test('defaults that are spelled out make no difference', () => {
  assert.ok(
    sameExpressions(
      [expr.dnat('ip', { address: 0, port: 1 })],
      [expr.dnat('ip', { address: 0, addressMax: 0, port: 1, portMax: 1, flags: [] })],
    ),
  );
});

test('a set with another key, value, flag, size or comment is another set', () => {
  const [endpoints] = SET_CASES;
  assert.ok(endpoints);
  const info = set(Buffer.from(recorded(SET_RECORDINGS, 'ip', endpoints.text).kernel, 'hex'));
  const { definition } = endpoints;
  const others = [
    { ...definition, name: 'other' },
    { ...definition, key: definition.key.slice(1) },
    { ...definition, value: 'verdict' as const },
    { ...definition, size: 17 },
    { ...definition, timeout: true },
    { ...definition, comment: 'x' },
  ];
  for (const other of others) assert.ok(!sameSetDefinition(other, info));
});
