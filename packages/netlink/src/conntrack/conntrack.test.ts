/** Without a kernel: what old kernels are told, and what becomes of their answers. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { AttributeDecoder, AttributeWriter } from '../attribute.js';
import { readHostU16, readHostU32 } from '../endian.js';
import { MESSAGE_HEADER } from '../message.js';
import { NFGENMSG, writeNfgenmsg } from '../nfnetlink.js';
import { acknowledgement, done, FakeTransport, message } from '../testing/fake-transport.js';
import { kernelComparesReplies } from './filter.js';
import { ConntrackConnection, type FlowFilter } from './index.js';

const NEW = 0x100;
const STATS_CPU = 0x104;
const STATS = 0x105;
const NLM_F_MULTI = 2;
const NLM_F_ACK = 4;

/** A UDP entry from 10.0.0.1:1000 to 10.0.0.2:53 that `endpoint` answers. */
function entry(sequence: number, endpoint: readonly number[], port = 53, status = 2): Buffer {
  const writer = new AttributeWriter();
  writeNfgenmsg(writer, 2);
  const tuple = (
    type: number,
    from: readonly number[],
    to: readonly number[],
    ports: [number, number],
  ): void => {
    writer.nest(type, (t) => {
      t.nest(1, (ip) => ip.data(1, Buffer.from(from)).data(2, Buffer.from(to)));
      t.nest(2, (proto) => proto.u8(1, 17).u16(2, ports[0]).u16(3, ports[1]));
    });
  };
  tuple(1, [10, 0, 0, 1], [10, 0, 0, 2], [1000, port]);
  tuple(2, endpoint, [10, 0, 0, 1], [port, 1000]);
  writer.u32(3, status);
  return message(NEW, NLM_F_MULTI, sequence, writer.bytes());
}

/** The types of the attributes of a request. */
function attributesOf(sent: Buffer | undefined): number[] {
  assert.ok(sent !== undefined);
  const types: number[] = [];
  const attributes = new AttributeDecoder(sent, MESSAGE_HEADER + NFGENMSG, sent.length, 'test');
  while (attributes.next()) types.push(attributes.type);
  attributes.finish();
  return types;
}

const FILTER = 25;

test('a kernel that refuses the filter delivers everything, and it is compared here', async () => {
  const transport = new FakeTransport((sent, sequence) =>
    attributesOf(sent).includes(FILTER)
      ? [acknowledgement(sequence, constants.errno.EOPNOTSUPP)]
      : [
          entry(sequence, [10, 0, 1, 1]),
          entry(sequence, [10, 0, 1, 2]),
          entry(sequence, [10, 0, 1, 1], 54),
          entry(sequence, [10, 0, 1, 1], 53, 0),
          done(sequence),
        ],
  );
  const connection = new ConntrackConnection(transport);
  const count = (filter: Omit<FlowFilter, 'protocol'>, protocol = 17): number => {
    let found = 0;
    connection.listFlows('ip', { protocol, ...filter }, () => found++);
    return found;
  };
  const address = Buffer.from([10, 0, 1, 1]);
  assert.equal(count({ replySource: { address, port: 53 } }), 2);
  assert.equal(transport.sent.length, 2, 'asked again');
  assert.equal(count({ replySource: { port: 53 } }), 3);
  assert.equal(transport.sent.length, 3, 'and not asked with a filter any more');
  assert.equal(count({ originalDestination: { address: Buffer.from([10, 0, 0, 2]), port: 54 } }), 1);
  assert.equal(count({ originalDestination: { address, port: 54 } }), 0);
  assert.equal(count({ originalDestination: { port: 53 } }), 3);
  assert.equal(count({ unanswered: true }), 1);
  assert.equal(count({}), 4);
  assert.equal(count({}, 132), 0);
  let found = 0;
  await connection.listFlowsAsync('ip', { protocol: 17 }, () => found++);
  assert.equal(found, 4);
  connection.close();
});

test('asynchronously: the fallback, a refusal, and an end before the end', async () => {
  let refuse = constants.errno.EINVAL;
  const transport = new FakeTransport((sent, sequence) =>
    attributesOf(sent).length > 0 || refuse === constants.errno.EPERM
      ? [acknowledgement(sequence, refuse)]
      : [entry(sequence, [10, 0, 1, 1]), entry(sequence, [10, 0, 1, 2]), done(sequence)],
  );
  const connection = new ConntrackConnection(transport);
  const found: number[] = [];
  await connection.listFlowsAsync('ip', { protocol: 17 }, ({ reply }) => found.push(reply.source[3] ?? 0));
  assert.deepEqual(found, [1, 2]);
  refuse = constants.errno.EPERM;
  await assert.rejects(
    connection.listFlowsAsync('ip', { protocol: 17 }, () => undefined),
    { code: 'EPERM' },
  );
  refuse = constants.errno.EINVAL;
  const abort = new AbortController();
  const counted: number[] = [];
  await assert.rejects(
    connection.listFlowsAsync(
      'ip',
      { protocol: 17 },
      ({ reply }) => {
        counted.push(reply.source[3] ?? 0);
        abort.abort();
      },
      { signal: abort.signal },
    ),
    { name: 'AbortError' },
  );
  assert.deepEqual(counted, [1]);
});

test('addresses of IPv6, and replies for kernels before 5.16, are not filtered by the kernel', () => {
  const nested = (sent: Buffer | undefined, wanted: number): number[] => {
    assert.ok(sent !== undefined);
    const types: number[] = [];
    const attributes = new AttributeDecoder(sent, MESSAGE_HEADER + NFGENMSG, sent.length, 'test');
    while (attributes.next()) {
      if (attributes.type !== wanted) continue;
      const inner = attributes.nested();
      while (inner.next()) types.push(inner.type);
    }
    return types;
  };
  const transport = new FakeTransport((_, sequence) => [done(sequence)]);
  const connection = new ConntrackConnection(transport);
  const to = (length: number): FlowFilter => ({
    protocol: 17,
    originalDestination: { address: Buffer.alloc(length), port: 53 },
  });
  connection.listFlows('ip', to(4), () => undefined);
  connection.listFlows('ip6', to(16), () => undefined);
  assert.deepEqual(
    transport.sent.map((sent) => nested(sent, 1)),
    [[1, 2], [2]],
    'addresses and protocol; protocol',
  );
  const kernels = ['5.15.0-100-generic', '5.16.0', '6.1.0-28-amd64', '4.19.0', '10.0'];
  assert.deepEqual(kernels.map(kernelComparesReplies), [false, true, true, false, true]);
});

test('deletions go in one datagram: those that were gone are not counted, refusals are told after all', () => {
  const asked: number[] = [];
  const answers = new Map([
    [1, constants.errno.ENOENT],
    [2, constants.errno.EBUSY],
  ]);
  const transport = new FakeTransport((sent, sequence) => {
    const replies: Buffer[] = [];
    for (let at = 0, index = 0; at < sent.length; at += readHostU32(sent, at), index++) {
      asked.push(index);
      const errno = answers.get(index) ?? 0;
      if (errno !== 0 || (readHostU16(sent, at + 6) & NLM_F_ACK) !== 0)
        replies.push(acknowledgement(sequence + index, errno));
    }
    return replies;
  });
  const connection = new ConntrackConnection(transport);
  const flow = { addressFamily: 2, originalTuple: Buffer.alloc(8), id: 7, zone: 0 };
  const five = [flow, flow, flow, flow, flow];
  assert.throws(() => connection.deleteFlows(five), { code: 'EBUSY' });
  answers.delete(2);
  assert.equal(connection.deleteFlows(five), 4);
  answers.set(4, constants.errno.ENOENT);
  assert.equal(connection.deleteFlows(five), 3, 'the last one is acknowledged by its failure');
  assert.equal(connection.deleteFlows([]), 0);
  assert.equal(transport.sent.length, 3);
  assert.equal(asked.length, 15);
});

test('statistics: one answer for the table, one per processor for the counters', () => {
  const body = (...values: readonly (readonly [type: number, value: number])[]): Buffer => {
    const writer = new AttributeWriter();
    writeNfgenmsg(writer, 0);
    for (const [type, value] of values) writer.u32(type, value);
    return Buffer.from(writer.bytes());
  };
  const transport = new FakeTransport((sent, sequence) =>
    readHostU16(sent, 4) === STATS
      ? [message(STATS, 0, sequence, body([1, 42], [2, 1000])), acknowledgement(sequence, 0)]
      : [
          message(
            STATS_CPU,
            NLM_F_MULTI,
            sequence,
            body([2, 9], [4, 1], [9, 2], [10, 3], [11, 4], [12, 5], [15, 6]),
          ),
          message(STATS_CPU, NLM_F_MULTI, sequence, body([10, 30], [11, 40])),
          done(sequence),
        ],
  );
  const connection = new ConntrackConnection(transport);
  assert.deepEqual(connection.usage(), { entries: 42, max: 1000 });
  assert.deepEqual(connection.stats(), {
    invalid: 1,
    insertFailed: 2,
    drop: 33,
    earlyDrop: 44,
    error: 5,
    chainTooLong: 6,
  });
});
