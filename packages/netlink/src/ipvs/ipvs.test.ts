/** Against bytes put together by hand from linux/ip_vs.h, for machines whose kernel has no IPVS. */
import assert from 'node:assert/strict';
import { endianness } from 'node:os';
import { test } from 'node:test';
import { AttributeDecoder, AttributeWriter } from '../attribute.js';
import { GenericConnection } from '../generic/index.js';
import { acknowledgement, done, FakeTransport, message } from '../testing/fake-transport.js';
import { decodeDestination, encodeDestination } from './destination.js';
import {
  describeCommand,
  IpvsConnection,
  IPVS_SVC_F,
  type IpvsCommand,
  type VirtualServer,
} from './index.js';
import { decodeService, describeKey, encodeService } from './service.js';

const skip = endianness() === 'LE' ? false : 'the bytes are those of a little-endian machine';
const hex = (...parts: readonly string[]): string => parts.join('').replaceAll(' ', '');

function encoded(encode: (writer: AttributeWriter) => void): string {
  const writer = new AttributeWriter();
  encode(writer);
  return writer.bytes().toString('hex');
}

/** Skips the header of the outer attribute. */
function inside(text: string): AttributeDecoder {
  const bytes = Buffer.from(text, 'hex');
  return new AttributeDecoder(bytes, 4, bytes.length, 'test');
}

const web: VirtualServer = {
  key: { family: 'ip', protocol: 6, address: '10.96.0.1', port: 443 },
  settings: { scheduler: 'rr', flags: IPVS_SVC_F.persistent, timeoutSeconds: 10_800, clientPrefixLength: 24 },
};
const webKey = hex(
  '0600 0100 0200 0000', // AF 2
  '0600 0200 0600 0000', // PROTOCOL 6
  '0800 0300 0a600001', // ADDR
  '0600 0400 01bb 0000', // PORT, network order
);
const dns: VirtualServer = {
  key: { family: 'ip6', protocol: 17, address: 'fd00:96::10', port: 53 },
  settings: { scheduler: 'mh', flags: 0x10, timeoutSeconds: 0, clientPrefixLength: 128 },
};

test('a virtual server by its key', { skip }, () => {
  assert.equal(
    encoded((w) => {
      encodeService(w, web.key);
    }),
    hex('2400 0180', webKey),
  );
  assert.equal(
    encoded((w) => {
      encodeService(w, { family: 'ip6', fwmark: 0x1234 });
    }),
    hex('1400 0180', '0600 0100 0a00 0000', '0800 0500 34120000'),
  );
});

test('a virtual server with all of its settings', { skip }, () => {
  assert.equal(
    encoded((w) => {
      encodeService(w, web.key, web.settings);
    }),
    hex(
      '4800 0180',
      webKey,
      '0700 0600 727200 00', // SCHED_NAME "rr"
      '0c00 0700 01000000 ffffffff', // FLAGS and mask
      '0800 0800 302a0000', // TIMEOUT 10800
      '0800 0900 ffffff00', // NETMASK, network order
    ),
  );
  assert.equal(
    encoded((w) => {
      encodeService(w, dns.key, { ...dns.settings, persistenceEngine: 'sip' });
    }),
    hex(
      '5c00 0180',
      '0600 0100 0a00 0000',
      '0600 0200 1100 0000',
      '1400 0300 fd000096000000000000000000000010',
      '0600 0400 0035 0000',
      '0700 0600 6d6800 00',
      '0c00 0700 10000000 ffffffff',
      '0800 0800 00000000',
      '0800 0900 80000000', // a prefix length in IPv6
      '0800 0b00 73697000',
    ),
  );
});

test('what the kernel answers: addresses of 16 bytes, its own flag, counters', { skip }, () => {
  const answer = hex(
    '6000 0180',
    '0600 0100 0200 0000',
    '0600 0200 0600 0000',
    '1400 0300 0a600001000000000000000000000000',
    '0600 0400 01bb 0000',
    '0700 0600 727200 00',
    '0c00 0700 03000000 ffffffff',
    '0800 0800 302a0000',
    '0800 0900 ffffff00',
    '0c00 0a80 0800 0100 05000000', // STATS
  );
  assert.deepEqual(decodeService(inside(answer)), {
    key: web.key,
    settings: { ...web.settings, flags: IPVS_SVC_F.persistent | IPVS_SVC_F.hashed },
  });
  for (const server of [web, dns]) {
    const text = encoded((w) => {
      encodeService(w, server.key, server.settings);
    });
    assert.deepEqual(decodeService(inside(text)), server);
  }
});

test('a list of servers begins with an empty virtual server', { skip }, () => {
  assert.equal(decodeService(inside('04000180')), undefined);
});

/** 1 to 10 in the order of the kernel's attributes, each as a u64. */
const counters = Array.from(
  { length: 10 },
  (_, i) =>
    `0c00${Buffer.of(i + 1, 0).toString('hex')}${Buffer.of(i + 1, 0, 0, 0, i, 0, 0, 0).toString('hex')}`,
).join('');
const countersWanted = {
  connections: 1n,
  packetsIn: 2n + (1n << 32n),
  packetsOut: 3n + (2n << 32n),
  bytesIn: 4n + (3n << 32n),
  bytesOut: 5n + (4n << 32n),
  perSecond: {
    connections: 6n + (5n << 32n),
    packetsIn: 7n + (6n << 32n),
    packetsOut: 8n + (7n << 32n),
    bytesIn: 9n + (8n << 32n),
    bytesOut: 10n + (9n << 32n),
  },
};

test('counters, for those who ask', { skip }, () => {
  const service = hex('0000 0180', webKey, '7c00 0c80', counters);
  assert.deepEqual(decodeService(inside(service), true)?.counters, countersWanted);
  assert.equal(decodeService(inside(service))?.counters, undefined);
  const server = hex('0000 0280', '0800 0100 0a3d0105', '7c00 0c80', counters);
  assert.deepEqual(decodeDestination(inside(server), 'ip', true)?.counters, countersWanted);
  assert.equal(decodeDestination(inside(server), 'ip')?.counters, undefined);
});

test('an address that is cut off', { skip }, () => {
  const d = inside(hex('1400 0180', '0600 0100 0a00 0000', '0800 0300 0a600001'));
  decodeService(d);
  assert.throws(
    () => {
      d.finish();
    },
    { code: 'EBADMSG' },
  );
});

test('a real server', { skip }, () => {
  const key = { family: 'ip', address: '10.61.1.5', port: 8080 } as const;
  const settings = { forwarding: 0, weight: 1, upperThreshold: 9, lowerThreshold: 3 };
  const name = hex('0600 0b00 0200 0000', '0800 0100 0a3d0105', '0600 0200 1f90 0000');
  assert.equal(
    encoded((w) => {
      encodeDestination(w, key);
    }),
    hex('1c00 0280', name),
  );
  assert.equal(
    encoded((w) => {
      encodeDestination(w, key, settings);
    }),
    hex(
      '3c00 0280',
      name,
      '0800 0300 00000000',
      '0800 0400 01000000',
      '0800 0500 09000000',
      '0800 0600 03000000',
    ),
  );
  const answer = hex(
    '5800 0280',
    '1400 0100 0a3d0105000000000000000000000000',
    '0600 0200 1f90 0000',
    '0800 0300 00010000', // masquerade; a higher bit is not the method's
    '0800 0400 01000000',
    '0800 0500 09000000',
    '0800 0600 03000000',
    '0800 0700 04000000',
    '0800 0800 05000000',
    '0800 0900 06000000',
  );
  const expected = { key, settings, activeConnections: 4, inactiveConnections: 5, persistentConnections: 6 };
  assert.deepEqual(decodeDestination(inside(answer), 'ip'), expected, 'an old kernel names no family');
  assert.deepEqual(decodeDestination(inside(`${answer}06000b0002000000`), 'ip6'), expected);
});

test('the family is looked up, then asked', { skip }, () => {
  const id = 0x1f;
  const service = encoded((w) => {
    encodeService(w, web.key, web.settings);
  });
  const transport = new FakeTransport((sent, sequence) =>
    sent.readUInt16LE(4) === 0x10
      ? [
          message(
            0x10,
            0,
            sequence,
            Buffer.from(
              hex('01020000', '0900 0200 4950565300 000000', '0600 0100 1f00 0000', '0800 0300 01000000'),
              'hex',
            ),
          ),
          acknowledgement(sequence, 0),
        ]
      : [message(id, 2, sequence, Buffer.from(`01010000${service}`, 'hex')), done(sequence)],
  );
  const ipvs = IpvsConnection.over(new GenericConnection(transport));
  assert.deepEqual(ipvs.listServices(), [web]);
  const [lookup, list] = transport.sent;
  assert.equal(lookup?.subarray(16).toString('hex'), hex('03020000', '0900 0200 4950565300 000000'));
  assert.equal(list?.readUInt16LE(4), id, 'the message type is the number of the family');
  assert.equal(list.subarray(16).toString('hex'), '04010000');
});

const IPVS_ID = 0x1f;
const familyAnswer = hex(
  '01020000',
  '0900 0200 4950565300 000000',
  '0600 0100 1f00 0000',
  '0800 0300 01000000',
);

/** An IPVS that answers `answers[n]` to the n-th datagram after the look-up; they get its first sequence number. */
function scripted(...answers: readonly ((sequence: number) => readonly Buffer[])[]) {
  const transport = new FakeTransport((sent, sequence, attempt) =>
    sent.readUInt16LE(4) === 0x10
      ? [message(0x10, 0, sequence, Buffer.from(familyAnswer, 'hex')), acknowledgement(sequence, 0)]
      : (answers[attempt - 2]?.(sequence) ?? []),
  );
  return { transport, ipvs: IpvsConnection.over(new GenericConnection(transport)) };
}

const pod = { family: 'ip', address: '10.61.1.5', port: 9000 } as const;
const weightOne = { forwarding: 0, weight: 1, upperThreshold: 0, lowerThreshold: 0 };
const many: readonly IpvsCommand[] = [
  { do: 'add service', server: web },
  { do: 'add destination', service: web.key, destination: pod, settings: weightOne },
  { do: 'change destination', service: web.key, destination: pod, settings: { ...weightOne, weight: 0 } },
  { do: 'delete destination', service: web.key, destination: pod },
  { do: 'delete service', service: dns.key },
];

test('many changes go in one datagram, and only the last asks for an answer', { skip }, () => {
  const ESRCH = 3;
  const ENOENT = 2;
  const { transport, ipvs } = scripted((s) => [
    Buffer.concat([acknowledgement(s + 1, ENOENT), acknowledgement(s + 4, ESRCH)]),
  ]);
  assert.deepEqual(
    ipvs.executeAll(many).map(({ index, error }) => [index, error.code, error.operation]),
    [
      [1, 'ENOENT', 'add real server 10.61.1.5 port 9000 of tcp 10.96.0.1:443'],
      [4, 'ESRCH', 'delete virtual server udp [fd00:96::10]:53'],
    ],
  );
  assert.equal(transport.sent.length, 2);
  const [, sent] = transport.sent;
  assert.ok(sent);
  const seen: string[] = [];
  for (let at = 0; at < sent.length; at += sent.readUInt32LE(at)) {
    const ack = (sent.readUInt16LE(at + 6) & 4) !== 0;
    seen.push(
      `${sent.readUInt16LE(at + 4) === IPVS_ID ? '' : 'wrong '}command ${sent[at + 16] ?? 0}${ack ? ' ack' : ''}`,
    );
  }
  assert.deepEqual(seen, ['command 1', 'command 5', 'command 6', 'command 7', 'command 3 ack']);
});

test('a great many changes go in several datagrams, numbered through', { skip }, () => {
  const each = 2000;
  const EEXIST = 17;
  const commands = Array.from({ length: each + 2 }, () => many[0] as IpvsCommand);
  const { transport, ipvs } = scripted(
    (s) => [acknowledgement(s + each - 1, 0)],
    (s) => [acknowledgement(s, EEXIST), acknowledgement(s + 1, 0)],
  );
  assert.deepEqual(
    ipvs.executeAll(commands).map(({ index, error }) => [index, error.code]),
    [[each, 'EEXIST']],
  );
  assert.equal(transport.sent.length, 3);
});

test('the attribute that the kernel objects to, in the middle of many', { skip }, () => {
  const EINVAL = 22;
  const { ipvs } = scripted((s) => [
    // In the second message: 16 + 4 bytes of headers, 4 of the outer attribute, the fourth attribute in it.
    acknowledgement(s + 1, EINVAL, { offset: 16 + 4 + 4 + 8 + 8 + 8 }),
    acknowledgement(s + 4, 0),
  ]);
  const [refusal] = ipvs.executeAll(many);
  assert.equal(refusal?.error.attribute, 'service.port');
});

test('nothing to change sends nothing', { skip }, () => {
  const { transport, ipvs } = scripted();
  assert.deepEqual(ipvs.executeAll([]), []);
  assert.equal(transport.sent.length, 1);
});

test('timeouts and the version', { skip }, () => {
  const { transport, ipvs } = scripted(
    (s) => [
      message(
        IPVS_ID,
        0,
        s,
        Buffer.from(hex('0c010000', '0800 0400 84030000', '0800 0500 78000000', '0800 0600 2c010000'), 'hex'),
      ),
      acknowledgement(s, 0),
    ],
    (s) => [acknowledgement(s, 0)],
    (s) => [
      message(IPVS_ID, 0, s, Buffer.from(hex('0e010000', '0800 0100 01020100', '0800 0200 00100000'), 'hex')),
      acknowledgement(s, 0),
    ],
  );
  assert.deepEqual(ipvs.getTimeouts(), { tcpSeconds: 900, tcpFinSeconds: 120, udpSeconds: 300 });
  ipvs.setTimeouts({ tcpSeconds: 7200, udpSeconds: 0 });
  assert.equal(
    transport.sent[2]?.subarray(16).toString('hex'),
    hex('0c010000', '0800 0400 201c0000', '0800 0600 00000000'),
  );
  assert.deepEqual(ipvs.getInfo(), { version: '1.2.1', connectionTableSize: 4096 });
});

test('commands in words', () => {
  assert.deepEqual(many.map(describeCommand), [
    'add virtual server tcp 10.96.0.1:443',
    'add real server 10.61.1.5 port 9000 of tcp 10.96.0.1:443',
    'change real server 10.61.1.5 port 9000 of tcp 10.96.0.1:443',
    'delete real server 10.61.1.5 port 9000 of tcp 10.96.0.1:443',
    'delete virtual server udp [fd00:96::10]:53',
  ]);
});

test('a kernel without IPVS says so', { skip }, () => {
  const ENOENT = 2;
  const transport = new FakeTransport((_, sequence) => [acknowledgement(sequence, ENOENT)]);
  assert.throws(() => IpvsConnection.over(new GenericConnection(transport)), {
    code: 'EPROTONOSUPPORT',
    message: /modprobe ip_vs/,
  });
});

test('keys in words', () => {
  assert.equal(describeKey(web.key), 'tcp 10.96.0.1:443');
  assert.equal(describeKey(dns.key), 'udp [fd00:96::10]:53');
  assert.equal(describeKey({ family: 'ip', fwmark: 7 }), 'ip fwmark 7');
});
