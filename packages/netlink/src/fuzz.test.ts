/**
 * Every decoder against bytes that nobody should send: random ones, and real messages with bytes changed, cut off
 * and repeated. A decoder may fail with NetlinkError or return something; it must not throw anything else, nor run on.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributeDecoder, AttributeWriter, locateAttribute } from './attribute.js';
import { decodeFlow } from './conntrack/flow.js';
import { NetlinkError } from './errors.js';
import { decodeFamily } from './generic/family.js';
import { decodeSetMessage } from './ipset/set.js';
import { decodeDestination } from './ipvs/destination.js';
import { decodeService } from './ipvs/service.js';
import { MessageReader, NLMSG_ERROR } from './message.js';
import { Batch } from './nftables/batch.js';
import { RULE_CASES } from './nftables/testing/rules.fixture.js';
import { decodeChain } from './nftables/objects/chain.js';
import { goTo } from './nftables/data.js';
import { describeMessage } from './nftables/describe.js';
import { decodeElements, ELEMENT_NAMES } from './nftables/objects/element.js';
import { encodeExpressions, decodeExpressions } from './nftables/expression/index.js';
import { decodeGeneration } from './nftables/generation.js';
import { decodeNotification } from './nftables/notification.js';
import { RULE_RECORDINGS, SET_RECORDINGS } from './nftables/testing/recordings.fixture.js';
import { decodeRule } from './nftables/objects/rule.js';
import { decodeSet } from './nftables/objects/set.js';
import { decodeTable } from './nftables/objects/table.js';
import { findComment } from './nftables/objects/userdata.js';
import { decodeAddress } from './rtnetlink/address.js';
import { decodeLink } from './rtnetlink/link.js';
import { acknowledgement, message } from './testing/fake-transport.js';
import { Random } from './testing/random.js';

const ROUNDS = 400;

type Decode = (bytes: Buffer) => void;

function overAttributes(decode: (d: AttributeDecoder) => void): Decode {
  return (bytes) => {
    const d = new AttributeDecoder(bytes, 0, bytes.length, 'fuzz');
    decode(d);
    d.finish();
  };
}

function overMessages(decode: (message: MessageReader) => void): Decode {
  return (bytes) => {
    const messages = new MessageReader(bytes, 'fuzz');
    while (messages.next()) decode(messages);
    messages.finish();
  };
}

const decoders: Readonly<Record<string, Decode>> = {
  table: overAttributes((d) => decodeTable(d, 'ip')),
  chain: overAttributes(decodeChain),
  rule: overAttributes(decodeRule),
  set: overAttributes(decodeSet),
  elements: overAttributes((d) => decodeElements(d, () => undefined)),
  generation: overAttributes(decodeGeneration),
  flow: overAttributes((d) => decodeFlow(d, 2)?.identity()),
  'expressions, encoded again': overAttributes((d) => {
    encodeExpressions(new AttributeWriter(), decodeExpressions(d));
  }),
  comment: (bytes) => findComment(bytes, 0),
  notification: overMessages(decodeNotification),
  address: overMessages(decodeAddress),
  'generic family': overAttributes(decodeFamily),
  'ipset entries': overAttributes((d) => decodeSetMessage(d, () => undefined)),
  'virtual server': overAttributes(decodeService),
  'real server': overAttributes((d) => decodeDestination(d, 'ip')),
  link: overMessages(decodeLink),
  acknowledgement: overMessages((m) => m.acknowledgement()),
  description: overMessages((m) => describeMessage(m.buffer, m.start, m.end, 20 + (m.sequence % 64))),
  location: (bytes) => {
    locateAttribute(bytes, 0, bytes.length, bytes.length >> 1, ELEMENT_NAMES);
  },
};

function realBytes(): Buffer[] {
  const hex = [...RULE_RECORDINGS, ...SET_RECORDINGS].flatMap(({ nft, kernel }) => [nft, kernel]);
  const attributes = hex.map((text) => Buffer.from(text, 'hex'));
  const rules = RULE_CASES.map(({ expressions }) => {
    const writer = new AttributeWriter();
    encodeExpressions(writer, expressions);
    return writer.bytes();
  });
  const batch = new Batch('ip', 't');
  batch.addTable({ comment: 'c' });
  batch.addChain('c', { base: { type: 'nat', hook: 'input', priority: 1 }, comment: 'c' });
  for (let i = 0; i < 4; i++) {
    batch.addElement('s', Buffer.alloc(9, i), goTo('c'), {
      comment: 'c',
      timeoutMs: 1,
      keyEnd: Buffer.alloc(4),
    });
  }
  batch.deleteElement('s', Buffer.alloc(4));
  const ifaddrmsg = Buffer.from('0218800001000000' + '080001007f000001' + '080002007f000001', 'hex');
  return [
    ...attributes,
    ...rules,
    Buffer.from(batch.writer.bytes()),
    message(20, 0, 1, ifaddrmsg),
    acknowledgement(1, 2, { text: 'no', offset: 20 }),
    message(NLMSG_ERROR, 0x300, 1, Buffer.alloc(5)),
    ...attributes
      .slice(0, 10)
      .map((payload) => message(0xa06, 0, 1, Buffer.concat([Buffer.alloc(4), payload]))),
  ];
}

function mutate(random: Random, original: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(original);
  for (let changes = 1 + random.below(6); changes > 0 && bytes.length > 0; changes--) {
    const at = random.below(bytes.length);
    switch (random.below(5)) {
      case 0:
        bytes[at] = random.next();
        break;
      case 1:
        bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)] ?? 0;
        break;
      case 2:
        bytes = bytes.subarray(0, at);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), random.bytes(random.below(9)), bytes.subarray(at)]);
        break;
      default:
        bytes = Buffer.concat([bytes, bytes.subarray(at, at + random.below(64))]);
    }
  }
  return bytes;
}

const corpus = realBytes();

for (const [name, decode] of Object.entries(decoders)) {
  test(`${name}: random and damaged bytes`, () => {
    const random = new Random(20240229);
    let refused = 0;
    const attempt = (bytes: Buffer): void => {
      try {
        decode(bytes);
      } catch (error) {
        if (!(error instanceof NetlinkError)) {
          throw new Error(`${name} on ${bytes.toString('hex')}`, { cause: error });
        }
        refused++;
      }
    };
    for (const bytes of corpus) attempt(bytes);
    for (let i = 0; i < ROUNDS; i++) {
      attempt(random.bytes(random.below(300)));
      // Lengths that are nearly right get further.
      const plausible = random.bytes(64);
      for (let at = 0; at + 4 <= plausible.length; at += 8) {
        plausible.writeUInt16LE(4 + random.below(12), at);
        plausible.writeUInt16LE(random.below(16), at + 2);
      }
      attempt(plausible);
    }
    for (let i = 0; i < ROUNDS * 10; i++) {
      attempt(mutate(random, corpus[random.below(corpus.length)] ?? Buffer.alloc(0)));
    }
    assert.ok(refused > 0 || name === 'comment' || name === 'location');
  });
}
