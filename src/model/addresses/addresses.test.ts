import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidrContains, formatCidr, formatIpPort, parseAddress, parseCidr } from './addresses.js';

// prettier-ignore
const addressCases: readonly (readonly [text: string, expected: string | undefined])[] = [
  ['203.0.113.7', 'IPv4 203.0.113.7'],
  ['203.000.113.007', 'IPv4 203.0.113.7'],
  ['10.061.001.031', 'IPv4 10.61.1.31'],
  ['0.0.0.0', 'IPv4 0.0.0.0'],
  ['255.255.255.255', 'IPv4 255.255.255.255'],
  ['256.0.0.1', undefined],
  ['1.2.3', undefined],
  ['1.2.3.4.5', undefined],
  ['1..3.4', undefined],
  ['1.2.3.', undefined],
  [' 1.2.3.4', undefined],
  ['1.2.3.4 ', undefined],
  ['0x1.2.3.4', undefined],
  ['-1.2.3.4', undefined],
  ['', undefined],
  ['pear', undefined],
  ['::', 'IPv6 ::'],
  ['::1', 'IPv6 ::1'],
  ['FD61:0:0:1::31', 'IPv6 fd61:0:0:1::31'],
  ['fd61:0000:0000:0001:0:0:0:31', 'IPv6 fd61:0:0:1::31'],
  ['2001:db8:0:1:1:1:1:1', 'IPv6 2001:db8:0:1:1:1:1:1'],
  ['2001:0:0:1:0:0:0:1', 'IPv6 2001:0:0:1::1'],
  ['2001:db8:0:0:1:0:0:1', 'IPv6 2001:db8::1:0:0:1'],
  ['1::', 'IPv6 1::'],
  ['1:2:3:4:5:6:7::', 'IPv6 1:2:3:4:5:6:7:0'],
  ['::2:3:4:5:6:7:8', 'IPv6 0:2:3:4:5:6:7:8'],
  ['::ffff:10.61.1.31', 'IPv4 10.61.1.31'],
  ['::ffff:0a3d:011f', 'IPv4 10.61.1.31'],
  ['64:ff9b::192.0.2.33', 'IPv6 64:ff9b::c000:221'],
  ['::1.2.3.4', 'IPv6 ::102:304'],
  ['1:2:3:4:5:6:7:8::', undefined],
  ['1:2:3:4:5:6:7', undefined],
  ['1:2:3:4:5:6:7:8:9', undefined],
  ['1::2::3', undefined],
  [':::1', undefined],
  ['1.2.3.4::', undefined],
  ['::1.2.3.4:1', undefined],
  ['12345::', undefined],
  ['fe80::1%eth0', undefined],
  [':1:2:3:4:5:6:7', undefined],
];

for (const [text, expected] of addressCases) {
  test(`address '${text}' is ${expected ?? 'refused'}`, () => {
    const parsed = parseAddress(text);
    assert.equal(parsed && `${parsed.family} ${parsed.ip}`, expected);
  });
}

// prettier-ignore
const cidrs: readonly (readonly [text: string, expected: string | undefined])[] = [
  ['198.51.100.0/26', 'IPv4 198.51.100.0/26'],
  ['198.51.100.9/26', 'IPv4 198.51.100.0/26'],
  ['198.051.100.000/026', 'IPv4 198.51.100.0/26'],
  ['198.51.100.77/32', 'IPv4 198.51.100.77/32'],
  ['198.51.100.77/0', 'IPv4 0.0.0.0/0'],
  ['255.255.255.255/17', 'IPv4 255.255.128.0/17'],
  ['198.51.100.0/33', undefined],
  ['198.51.100.0/-1', undefined],
  ['198.51.100.0/', undefined],
  ['198.51.100.0/1e1', undefined],
  ['198.51.100.0', undefined],
  [' 198.51.100.0/26', undefined],
  ['garbage', undefined],
  ['2001:db8:f::7/48', 'IPv6 2001:db8:f::/48'],
  ['2001:db8:ffff::/33', 'IPv6 2001:db8:8000::/33'],
  ['::1/128', 'IPv6 ::1/128'],
  ['fd00::1/0', 'IPv6 ::/0'],
  ['fd00::/129', undefined],
  ['::ffff:10.61.0.0/112', 'IPv4 10.61.0.0/16'],
  ['::ffff:10.61.0.0/90', undefined],
];

for (const [text, expected] of cidrs) {
  test(`CIDR '${text}' is ${expected ?? 'refused'}`, () => {
    const parsed = parseCidr(text);
    assert.equal(parsed && `${parsed.family} ${formatCidr(parsed.cidr)}`, expected);
  });
}

// prettier-ignore
const contains: readonly (readonly [cidr: string, ip: string, expected: boolean])[] = [
  ['198.51.100.0/26', '198.51.100.63', true],
  ['198.51.100.0/26', '198.51.100.64', false],
  ['0.0.0.0/0', '10.0.0.1', true],
  ['0.0.0.0/0', '::1', false],
  ['::/0', '::1', true],
  ['2001:db8:a::/48', '2001:db8:a::11', true],
  ['2001:db8:a::/48', '2001:db8:b::11', false],
  ['10.0.0.1/32', '10.0.0.1', true],
];

for (const [text, ip, expected] of contains) {
  test(`${text} ${expected ? 'contains' : 'does not contain'} ${ip}`, () => {
    const parsed = parseCidr(text);
    assert.ok(parsed);
    assert.equal(cidrContains(parsed.cidr, ip), expected);
  });
}

test('canonical text comes back as the same string, so that it is kept once', () => {
  for (const text of ['10.61.1.31', 'fd61:0:0:1::31']) assert.equal(parseAddress(text)?.ip, text);
});

test('an IPv6 address is bracketed before its port', () => {
  assert.equal(formatIpPort('10.61.1.31', 80), '10.61.1.31:80');
  assert.equal(formatIpPort('fd61::31', 80), '[fd61::31]:80');
});
