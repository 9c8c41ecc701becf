/** Against bytes put together by hand from linux/ip_vs.h, for machines whose kernel has no IPVS. */
import assert from 'node:assert/strict';
import { endianness } from 'node:os';
import { test } from 'node:test';
import { AttributeDecoder, AttributeWriter } from '../attribute.js';
import { GenericConnection } from '../genl/index.js';
import { acknowledgement, done, FakeTransport, message } from '../testing/fake-transport.js';
import { decodeDestination, encodeDestination } from './destination.js';
import { IpvsConnection, IPVS_SVC_F, type VirtualServer } from './index.js';
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
