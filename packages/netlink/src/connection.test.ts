import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttributeWriter } from './attribute.js';
import { NetlinkConnection, type Request } from './connection.js';
import { acknowledgement, done, FakeTransport, message } from './testing/fake-transport.js';

const NLM_F_MULTI = 2;
const NLM_F_DUMP_INTR = 0x10;
const ENTRY = 20;

const request: Request = {
  type: 18,
  operation: 'list things',
  encode: (writer) => writer.string(1, 'which'),
  names: { headerLength: 0, attributes: { 1: 'name' } },
};

function entry(sequence: number, value: number, flags = NLM_F_MULTI): Buffer {
  return message(ENTRY, flags, sequence, Buffer.of(value, 0, 0, 0));
}

function collect(transport: FakeTransport, restart = true): number[] {
  let values: number[] = [];
  new NetlinkConnection(transport).dump(
    request,
    (m) => values.push(m.buffer.readUInt8(m.payload)),
    restart
      ? (): void => {
          values = [];
        }
      : undefined,
  );
  return values;
}

test('a dump of several datagrams, several messages each', () => {
  const transport = new FakeTransport((_, s) => [
    Buffer.concat([entry(s, 1), entry(s, 2)]),
    entry(s, 3),
    Buffer.concat([entry(s, 4), done(s)]),
  ]);
  assert.deepEqual(collect(transport), [1, 2, 3, 4]);
});

test('answers to earlier requests are passed over', () => {
  const transport = new FakeTransport((_, s) => [
    acknowledgement(s + 1000, 5),
    entry(s + 7, 9),
    entry(s, 1),
    done(s),
  ]);
  assert.deepEqual(collect(transport), [1]);
});

test('an interrupted dump starts over', () => {
  const transport = new FakeTransport((_, s, attempt) =>
    attempt < 3
      ? [entry(s, 9), entry(s, 8, NLM_F_MULTI | NLM_F_DUMP_INTR), done(s)]
      : [entry(s, 1), entry(s, 2), done(s)],
  );
  assert.deepEqual(collect(transport), [1, 2]);
  assert.equal(transport.sent.length, 3);
});

test('a dump that is always interrupted ends', () => {
  const transport = new FakeTransport((_, s) => [entry(s, 1, NLM_F_MULTI | NLM_F_DUMP_INTR), done(s)]);
  assert.throws(() => collect(transport), { code: 'EINTR' });
  assert.equal(transport.sent.length, 8);
});

test('an interrupted dump that nobody can restart is an error', () => {
  const transport = new FakeTransport((_, s) => [entry(s, 1, NLM_F_MULTI | NLM_F_DUMP_INTR), done(s)]);
  assert.throws(() => collect(transport, false), { code: 'EINTR' });
});

test('a refused dump names the request and the attribute', () => {
  const MESSAGE_HEADER = 16;
  const transport = new FakeTransport((_, s) => [
    acknowledgement(s, 2, { text: 'no such thing', offset: MESSAGE_HEADER }),
  ]);
  assert.throws(() => collect(transport), {
    code: 'ENOENT',
    operation: 'list things',
    extendedAck: 'no such thing',
    attribute: 'name',
  });
});

test('a silent kernel is an error, not a hang', () => {
  assert.throws(() => collect(new FakeTransport(() => [])), { code: 'ETIMEDOUT' });
});

test('a datagram that is cut short is an error', () => {
  const transport = new FakeTransport((_, s) => [entry(s, 1).subarray(0, 18)]);
  assert.throws(() => collect(transport), { code: 'EBADMSG' });
});

test('a callback that throws is heard after the dump has been read to its end', () => {
  const transport = new FakeTransport((_, s, attempt) =>
    attempt === 1 ? [entry(s, 1), entry(s, 2), done(s)] : [acknowledgement(s, 0)],
  );
  const connection = new NetlinkConnection(transport);
  assert.throws(() => {
    connection.dump(request, () => {
      throw new Error('enough');
    });
  }, /enough/);
  connection.execute(request);
});

test('a request gets its reply, then its acknowledgement', () => {
  const transport = new FakeTransport((_, s) => [entry(s, 5, 0), acknowledgement(s, 0)]);
  const replies: number[] = [];
  new NetlinkConnection(transport).execute(request, (m) => replies.push(m.buffer.readUInt8(m.payload)));
  assert.deepEqual(replies, [5]);
});

test('a refusal for want of privilege says what to do', () => {
  const transport = new FakeTransport((_, s) => [acknowledgement(s, 1)]);
  assert.throws(
    () => {
      new NetlinkConnection(transport).execute(request);
    },
    { code: 'EPERM', message: /CAP_NET_ADMIN.*run as root/ },
  );
});

test('an acknowledgement that repeats the whole message is understood too', () => {
  const NLM_F_ACK_TLVS = 0x200;
  const transport = new FakeTransport((sent, s) => {
    const body = new AttributeWriter();
    body
      .raw(new Uint8Array(Int32Array.of(-22).buffer))
      .raw(sent)
      .string(1, 'why');
    return [message(2, NLM_F_ACK_TLVS, s, body.bytes())];
  });
  assert.throws(
    () => {
      new NetlinkConnection(transport).execute(request);
    },
    { code: 'EINVAL', extendedAck: 'why' },
  );
});
