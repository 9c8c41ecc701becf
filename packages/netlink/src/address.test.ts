import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import { test } from 'node:test';
import { decodeIPv4, decodeIPv6, encodeIPv4, encodeIPv6, formatAddress, parseAddress } from './address.js';
import { NetlinkError } from './errors.js';
import { Random } from './testing/random.js';

const canonical: readonly (readonly [text: string, bytes: string, canonical?: string])[] = [
  ['0.0.0.0', '00000000'],
  ['10.0.0.1', '0a000001'],
  ['255.255.255.255', 'ffffffff'],
  ['::', '00000000000000000000000000000000'],
  ['::1', '00000000000000000000000000000001'],
  ['1::', '00010000000000000000000000000000'],
  ['2001:db8::7', '20010db8000000000000000000000007'],
  ['2001:DB8:0:0:0::7', '20010db8000000000000000000000007', '2001:db8::7'],
  ['fe80:0:0:1:0:0:0:1', 'fe800000000000010000000000000001', 'fe80:0:0:1::1'],
  ['2001:db8:0:1:1:1:1:1', '20010db8000000010001000100010001'],
  ['2001:0:0:1:0:0:1:1', '20010000000000010000000000010001', '2001::1:0:0:1:1'],
  ['::ffff:1.2.3.4', '00000000000000000000ffff01020304'],
  ['64:ff9b::192.0.2.33', '0064ff9b0000000000000000c0000221', '64:ff9b::c000:221'],
  ['1:2:3:4:5:6:7.8.9.10', '0001000200030004000500060708090a', '1:2:3:4:5:6:708:90a'],
  ['1:2:3:4:5:6:7::', '00010002000300040005000600070000', '1:2:3:4:5:6:7:0'],
];

for (const [text, bytes, printed] of canonical) {
  test(`${text} is ${bytes}`, () => {
    assert.equal(parseAddress(text).toString('hex'), bytes);
    assert.equal(formatAddress(Buffer.from(bytes, 'hex')), printed ?? text);
  });
}

const wrong = [
  '',
  '1.2.3',
  '1.2.3.4.5',
  '1.2.3.256',
  '1.2.3.04',
  '1.2.3.4 ',
  '1..3.4',
  '1.2.3.-4',
  ':',
  ':::',
  ':1',
  '1:',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7:8::',
  '::1:2:3:4:5:6:7:8',
  '1::2::3',
  '12345::',
  'g::',
  'fe80::1%eth0',
  '::1.2.3',
  '1:2:3:4:5:6:7:1.2.3.4',
  '::1.2.3.4:5',
];

test('what is not an address is refused', () => {
  for (const text of wrong) {
    assert.throws(() => parseAddress(text), NetlinkError, text);
  }
});

test('offsets are respected', () => {
  const target = Buffer.alloc(24, 0xee);
  encodeIPv4('1.2.3.4', target, 2);
  encodeIPv6('::9', target, 7);
  assert.equal(target.toString('hex'), 'eeee01020304ee00000000000000000000000000000009ee');
  assert.equal(decodeIPv4(target, 2), '1.2.3.4');
  assert.equal(decodeIPv6(target, 7), '::9');
});

test('random addresses survive, and random text is judged as Node judges it', () => {
  const random = new Random(1);
  for (let i = 0; i < 20_000; i++) {
    const bytes = random.bytes(i % 2 === 0 ? 4 : 16);
    // Runs of zeros are what compression is about.
    if (bytes.length === 16)
      for (let g = 0; g < 16; g += 2) if (random.below(2) === 0) bytes.fill(0, g, g + 2);
    const text = formatAddress(bytes);
    assert.ok(parseAddress(text).equals(bytes), text);
    const alphabet = '0123456789abcdef:::..';
    const noise = Array.from(
      { length: random.below(18) },
      () => alphabet[random.below(alphabet.length)],
    ).join('');
    const cut = random.below(text.length + 1);
    for (const candidate of [noise, text.slice(0, cut) + noise.slice(0, 2) + text.slice(cut)]) {
      let accepted = true;
      try {
        parseAddress(candidate);
      } catch {
        accepted = false;
      }
      assert.equal(accepted, isIPv4(candidate) || isIPv6(candidate), candidate);
    }
  }
});
