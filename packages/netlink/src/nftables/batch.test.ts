import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MessageReader } from '../message.js';
import { NFGENMSG } from '../nfnetlink.js';
import { acknowledgement, FakeTransport } from '../testing/fake-transport.js';
import { Batch } from './batch.js';
import { NftablesConnection } from './connection.js';
import { NFT_MSG, nftType } from './constants.js';
import { goTo, type Verdict } from './data.js';
import { decodeElements, type ElementInfo } from './objects/element.js';
import { expr } from './expression/index.js';
import { loadFields, selectors, types } from './field.js';

const KEY = Buffer.from('0a000001', 'hex');

interface Sent {
  readonly kind: string;
  readonly flags: number;
  readonly sequence: number;
  readonly elements: { key: string; value: string | Verdict | undefined; info: ElementInfo }[];
}

const KINDS = new Map<number, string>([
  [0x10, 'begin'],
  [0x11, 'end'],
  ...Object.entries(NFT_MSG).map(([name, number]): [number, string] => [nftType(number), name]),
]);

function read(datagram: Buffer): Sent[] {
  const messages = new MessageReader(datagram, 'test');
  const sent: Sent[] = [];
  while (messages.next()) {
    const kind = KINDS.get(messages.type) ?? '?';
    const elements: Sent['elements'] = [];
    if (kind.endsWith('SETELEM')) {
      const attributes = messages.attributes(NFGENMSG);
      decodeElements(attributes, (key, value, info) => {
        elements.push({
          key: key.toString('hex'),
          value: Buffer.isBuffer(value) ? value.toString('hex') : value,
          info,
        });
      });
      attributes.finish();
    }
    sent.push({ kind, flags: messages.flags, sequence: messages.sequence, elements });
  }
  messages.finish();
  return sent;
}

/** Commits against a kernel that agrees with everything. */
function commit(batch: Batch): Sent[] {
  const transport = new FakeTransport((sent) => {
    const last = read(sent).at(-2);
    return [acknowledgement(last?.sequence ?? 0, 0)];
  });
  new NftablesConnection(transport).commit(batch);
  const [datagram] = transport.sent;
  return datagram === undefined ? [] : read(datagram);
}

test('an empty batch is not sent', () => {
  const batch = new Batch('ip', 't');
  assert.ok(batch.isEmpty);
  assert.equal(batch.byteLength, 0);
  assert.deepEqual(commit(batch), []);
});

test('elements of one set share a message; anything between parts them, and order is kept', () => {
  const batch = new Batch('ip', 't');
  batch.addElement('a', KEY);
  batch.addElement('a', KEY);
  batch.addElement('b', KEY);
  batch.addElement('a', KEY);
  batch.deleteElement('a', KEY);
  batch.deleteElement('a', KEY);
  batch.addElement('a', KEY);
  batch.flushSet('a');
  batch.addElement('a', KEY);
  assert.equal(batch.messageCount, 7);
  assert.deepEqual(
    commit(batch).map(({ kind, elements }) => `${kind} ${elements.length}`),
    [
      'begin 0',
      'NEWSETELEM 2',
      'NEWSETELEM 1',
      'NEWSETELEM 1',
      'DELSETELEM 2',
      'NEWSETELEM 1',
      'DELSETELEM 0',
      'NEWSETELEM 1',
      'end 0',
    ],
  );
});

test('messages are numbered one after the other, and only the last asks for an acknowledgement', () => {
  const NLM_F_ACK = 4;
  const batch = new Batch('ip', 't');
  batch.addTable();
  batch.addChain('c');
  batch.flushChain('c');
  const sent = commit(batch);
  const first = sent[0]?.sequence ?? 0;
  assert.deepEqual(
    sent.map((m) => m.sequence - first),
    [0, 1, 2, 3, 4],
  );
  assert.deepEqual(
    sent.map((m) => (m.flags & NLM_F_ACK) !== 0),
    [false, false, false, true, false],
  );
});

test('a batch can be committed twice, and grow in between', () => {
  const batch = new Batch('ip', 't');
  batch.addTable();
  const once = commit(batch);
  assert.deepEqual(commit(batch), once);
  batch.addChain('c');
  const NLM_F_ACK = 4;
  assert.deepEqual(
    commit(batch).map((m) => [m.kind, (m.flags & NLM_F_ACK) !== 0]),
    [
      ['begin', false],
      ['NEWTABLE', false],
      ['NEWCHAIN', true],
      ['end', false],
    ],
  );
});

test('no list of elements outgrows its length field, whatever their sizes', () => {
  for (const size of [4, 7, 16, 61]) {
    const batch = new Batch('ip6', 't');
    const total = 9000;
    for (let i = 0; i < total; i++) {
      const key = Buffer.alloc(size);
      key.writeUInt32BE(i);
      batch.addElement(
        's',
        key,
        goTo(`chain-${i % 17}`),
        i % 3 === 0 ? { comment: `element ${i}` } : undefined,
      );
    }
    let next = 0;
    for (const { elements } of commit(batch)) {
      for (const { key, value, info } of elements) {
        assert.equal(Buffer.from(key, 'hex').readUInt32BE(0), next);
        assert.deepEqual(value, goTo(`chain-${next % 17}`));
        assert.equal(info.comment, next % 3 === 0 ? `element ${next}` : undefined);
        next++;
      }
    }
    assert.equal(next, total);
    assert.ok(batch.messageCount > 5);
  }
});

test('an element that fits exactly is not put into the next message', () => {
  // 12 bytes of headers and 4 of key: the list takes (65535 - 4 - 4) / 16 of them at least.
  const batch = new Batch('ip', 't');
  for (let i = 0; i < 4095; i++) batch.addElement('s', KEY);
  assert.equal(batch.messageCount, 1);
  for (let i = 0; i < 10; i++) batch.addElement('s', KEY);
  assert.equal(batch.messageCount, 2);
  assert.equal(
    commit(batch).reduce((sum, m) => sum + m.elements.length, 0),
    4105,
  );
});

test('element options', () => {
  const batch = new Batch('ip', 't');
  batch.addElement('s', KEY, Buffer.of(1, 2), {
    comment: 'x'.repeat(128),
    timeoutMs: 5_000_000_000,
    intervalEnd: true,
    keyEnd: Buffer.of(9, 9, 9),
  });
  const element = commit(batch)[1]?.elements[0];
  assert.deepEqual(
    { ...element, info: { ...element?.info, keyEnd: element?.info.keyEnd?.toString('hex') } },
    {
      key: '0a000001',
      value: '0102',
      info: {
        comment: 'x'.repeat(128),
        timeoutMs: 5_000_000_000,
        expiresMs: undefined,
        intervalEnd: true,
        keyEnd: '090909',
      },
    },
  );
});

test('what can not be encoded throws and leaves the batch as it was', () => {
  const batch = new Batch('ip', 't');
  batch.addElement('s', KEY);
  const { byteLength, messageCount } = batch;
  assert.throws(() => {
    batch.addElement('s', KEY, undefined, { comment: 'ü'.repeat(65) });
  }, RangeError);
  assert.throws(() => {
    batch.addElement('other', KEY, undefined, { comment: 'x'.repeat(129) });
  }, RangeError);
  assert.throws(() => {
    batch.addChain('c', { comment: 'x'.repeat(129) });
  }, RangeError);
  assert.throws(() => {
    batch.addRule('c', [expr.immediate(0, Buffer.alloc(70_000))]);
  });
  assert.deepEqual([batch.byteLength, batch.messageCount], [byteLength, messageCount]);
  assert.equal(commit(batch)[1]?.elements.length, 1);
});

test('the first failing message is named, wherever the kernel reports what', () => {
  const batch = new Batch('ip', 't');
  batch.addTable();
  for (let i = 0; i < 3; i++) batch.addElement('classes', Buffer.of(i, 0, 0, 0), goTo('c'));
  batch.deleteChain('gone');
  // 16 + 4 header, 8 table, 12 set name and its header, 4 list header, then elements.
  const elementsAt = 20 + 8 + 4 + 8 + 4;
  const sizes = 4 + 12 + 28;
  const answer = (answers: (begin: number) => readonly Buffer[]): NftablesConnection =>
    new NftablesConnection(new FakeTransport((_, begin) => answers(begin)));
  const attempt = (connection: NftablesConnection) => (): void => {
    connection.commit(batch);
  };
  assert.throws(
    attempt(
      answer((begin) => [
        acknowledgement(begin + 2, 2, { offset: elementsAt + 4 + 2 * sizes, text: 'x' }),
        acknowledgement(begin + 3, 2),
      ]),
    ),
    {
      operation: 'add element to map "classes"',
      messageIndex: 1,
      elementIndex: 2,
      code: 'ENOENT',
      extendedAck: 'x',
    },
  );
  assert.throws(attempt(answer((begin) => [acknowledgement(begin + 1, 17), acknowledgement(begin + 3, 0)])), {
    operation: 'add table "t"',
    messageIndex: 0,
    code: 'EEXIST',
  });
  assert.throws(attempt(answer((begin) => [acknowledgement(begin, 1)])), {
    operation: 'commit 3 changes to table "t"',
    messageIndex: undefined,
    code: 'EPERM',
  });
  // The acknowledgement got lost, an error did not.
  assert.throws(attempt(answer((begin) => [acknowledgement(begin + 1, 16)])), { code: 'EBUSY' });
  // Leftovers of earlier commits mean nothing.
  attempt(answer((begin) => [acknowledgement(begin - 1, 16), acknowledgement(begin + 3, 0)]))();
});

test('loading a key puts every field into the register after the one before', () => {
  const { ip6Daddr, l4proto, thDport, numgenRandom } = selectors;
  assert.deepEqual(loadFields([ip6Daddr, l4proto, thDport, numgenRandom(3)], 0), [
    expr.payload('network', 24, 16, 0),
    expr.meta('l4proto', 4),
    expr.payload('transport', 2, 2, 5),
    expr.numgen('random', 3, 6),
  ]);
  assert.throws(() => loadFields([types.ipv4Addr], 0), RangeError);
  assert.throws(() => loadFields([ip6Daddr, l4proto], 12), RangeError);
});

test('a decoder for elements accepts what the batch writes at any alignment', () => {
  const batch = new Batch('ip', 't');
  for (let size = 1; size <= 64; size++)
    batch.addElement('s', Buffer.alloc(size, size), Buffer.alloc(65 - size, 1));
  const elements = commit(batch)[1]?.elements ?? [];
  assert.equal(elements.length, 64);
  for (const [i, { key, value }] of elements.entries()) {
    assert.equal(key, Buffer.alloc(i + 1, i + 1).toString('hex'));
    assert.equal(value, Buffer.alloc(64 - i, 1).toString('hex'));
  }
});
