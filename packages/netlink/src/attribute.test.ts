import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributeDecoder, type AttributeNames, AttributeWriter, locateAttribute } from './attribute.js';
import { NetlinkError } from './errors.js';

function decoder(writer: AttributeWriter): AttributeDecoder {
  return new AttributeDecoder(writer.bytes(), 0, writer.length, 'test');
}

test('every kind of value comes back', () => {
  const writer = new AttributeWriter(4);
  writer
    .u8(1, 200)
    .u16(2, 0xabcd)
    .u32(3, 0xdeadbeef)
    .hostU32(4, 77)
    .u64(5, 2n ** 63n)
    .string(6, 'größe')
    .data(7, Buffer.of(1, 2, 3, 4, 5))
    .flag(8)
    .u32(9, -100)
    .nest(10, (inner) => {
      inner.u8(1, 1).u8(2, 2);
    });
  assert.equal(writer.length % 4, 0);
  const d = decoder(writer);
  const seen: unknown[] = [];
  while (d.next()) {
    if (d.type === 1) seen.push(d.u8());
    else if (d.type === 2) seen.push(d.u16());
    else if (d.type === 3) seen.push(d.u32());
    else if (d.type === 4) seen.push(d.hostU32());
    else if (d.type === 5) seen.push(d.u64());
    else if (d.type === 6) seen.push(d.string());
    else if (d.type === 7) seen.push(d.copy().toString('hex'));
    else if (d.type === 8) seen.push(d.length);
    else if (d.type === 9) seen.push(d.i32());
    else {
      const inner = d.nested();
      while (inner.next()) seen.push([inner.type, inner.u8()]);
    }
  }
  d.finish();
  assert.deepEqual(seen, [
    200,
    0xabcd,
    0xdeadbeef,
    77,
    2n ** 63n,
    'größe',
    '0102030405',
    0,
    -100,
    [1, 1],
    [2, 2],
  ]);
});

test('the form on the wire', () => {
  const writer = new AttributeWriter().string(1, 't').nest(3, (list) => list.u32(2, 1));
  // Length and type are in host order: compare on the machines this was recorded on.
  if (new Uint8Array(Uint16Array.of(1).buffer)[0] !== 1) return;
  assert.equal(
    writer.bytes().toString('hex'),
    '06000100' + '74000000' + '0c000380' + '08000200' + '00000001',
  );
});

test('what does not fit the length field is refused', () => {
  const writer = new AttributeWriter();
  assert.throws(() => writer.data(1, Buffer.alloc(65_532)), NetlinkError);
  assert.throws(
    () =>
      writer.nest(1, (inner) => {
        inner.data(1, Buffer.alloc(40_000)).data(1, Buffer.alloc(40_000));
      }),
    NetlinkError,
  );
});

const malformed: readonly (readonly [what: string, write: (writer: AttributeWriter) => void])[] = [
  ['a length below the header', (w) => w.raw(Buffer.of(3, 0, 1, 0))],
  ['a length of zero', (w) => w.raw(Buffer.of(0, 0, 0, 0))],
  ['a length beyond the end', (w) => w.raw(Buffer.of(0xff, 0xff, 1, 0, 1, 2, 3, 4))],
  ['a value shorter than its type', (w) => w.u8(3, 1)],
  ['a bad attribute in a nested one', (w) => w.data(10, Buffer.of(0xff, 0xff, 1, 0))],
];

for (const [what, write] of malformed) {
  test(`${what} ends the iteration, and is told at the end`, () => {
    const writer = new AttributeWriter();
    write(writer);
    writer.u32(3, 7);
    const d = new AttributeDecoder(writer.bytes(), 0, writer.length, 'read something');
    let values = 0;
    for (let rounds = 0; d.next(); rounds++) {
      assert.ok(rounds < 5);
      if (d.type === 3) values += d.u32() === 7 ? 1 : 0;
      if (d.type === 10) while (d.nested().next());
    }
    assert.equal(values, 0);
    assert.throws(
      () => {
        d.finish();
      },
      { code: 'EBADMSG', operation: 'read something' },
    );
  });
}

test('an attribute is located by its offset', () => {
  const names: AttributeNames = {
    1: 'table',
    3: ['elements', { list: { 1: 'key', 2: ['data', { 1: 'value' }] } }],
  };
  const writer = new AttributeWriter();
  const offsets: number[] = [];
  const mark = (): void => {
    offsets.push(writer.length);
  };
  mark();
  writer.string(1, 'some table');
  mark();
  const list = writer.openNest(3);
  for (let i = 0; i < 3; i++) {
    mark();
    const element = writer.openNest(1);
    mark();
    writer.data(1, Buffer.alloc(6));
    const data = writer.openNest(2);
    mark();
    writer.data(1, Buffer.alloc(3));
    writer.closeNest(data);
    writer.closeNest(element);
  }
  writer.closeNest(list);
  mark();
  writer.u8(9, 1);
  const found = offsets.map((offset) => locateAttribute(writer.bytes(), 0, writer.length, offset, names));
  assert.deepEqual(
    found.map((location) => location?.path),
    [
      'table',
      'elements',
      'elements[0]',
      'elements[0].key',
      'elements[0].data.value',
      'elements[1]',
      'elements[1].key',
      'elements[1].data.value',
      'elements[2]',
      'elements[2].key',
      'elements[2].data.value',
      '9',
    ],
  );
  assert.equal(found[8]?.listIndex, 2);
  assert.equal(found[0]?.listIndex, undefined);
  assert.equal(locateAttribute(writer.bytes(), 0, writer.length, 5000, names), undefined);
});
