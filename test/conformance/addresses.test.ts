import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nameOf, placeOf, sameAddress, toV6, translateText } from './addresses.js';

describe('IPv6 twins', () => {
  const twins: readonly (readonly [string, string])[] = [
    ['10.61.1.31', 'fd61:0:0:1::31'],
    ['10.61.0.0/16', 'fd61:0:0:0::/48'],
    ['10.177.0.50', 'fd77::50'],
    ['10.177.9.9', 'fd77::9009'],
    ['10.177.16.1', 'fd77::1:1'],
    ['10.177.0.0/20', 'fd77::/112'],
    ['198.51.100.0/26', '2001:db8:f::/122'],
    ['198.51.100.7/32', '2001:db8:f::7/128'],
    ['100.64.10.0/24', '2001:db8:a::/64'],
    ['0.0.0.0/0', '::/0'],
    ['garbage', 'garbage'],
  ];
  for (const [v4, v6] of twins) {
    it(`${v4} is ${v6}`, () => {
      assert.equal(toV6(v4), v6);
    });
  }

  it('keeps the ranges apart that the cases tell apart', () => {
    // XA is inside 198.51.100.0/26, XB is not: the same must hold for ::7 and ::200 in a /122.
    const inside = (address: string): boolean => BigInt(`0x${address.split('::')[1] ?? '0'}`) < 64n;
    assert.deepEqual(['198.51.100.7', '198.51.100.200'].map(toV6).map(inside), [true, false]);
  });

  it('translates addresses inside a line, with and without a port', () => {
    assert.equal(translateText('XA -> 192.0.2.90:443'), 'XA -> [2001:db8:b::90]:443');
    assert.equal(translateText('http://100.64.10.11:32190/'), 'http://[2001:db8:a::11]:32190/');
    assert.equal(translateText('100.64.10.11@alder'), '2001:db8:a::11@alder');
  });
});

describe('places', () => {
  it('knows who gets a packet that nobody translates', () => {
    assert.deepEqual(
      [
        '10.61.1.20',
        '10.61.1.31',
        '10.61.2.41',
        '100.64.10.11',
        '127.0.0.2',
        '198.51.100.7',
        '198.51.100.53',
      ].map(placeOf),
      ['local-clients', 'local-pods', 'remote-pods', 'alder', 'alder', 'outside', 'elsewhere'],
    );
    assert.deepEqual(
      [
        'fd61:0:0:1::250',
        'fd61:0:0:1::32',
        'fd61:0:0:2::41',
        '2001:db8:77::11',
        '::1',
        '2001:db8:f::200',
        'fd77::50',
      ].map(placeOf),
      ['local-clients', 'local-pods', 'remote-pods', 'alder', 'alder', 'outside', 'elsewhere'],
    );
  });

  it('compares addresses, not texts', () => {
    assert.ok(sameAddress('fd61:0:0:1::31', 'fd61:0:0:1:0:0:0:31'));
    assert.ok(!sameAddress('fd61:0:0:1::31', 'fd61:0:0:1::32'));
    assert.equal(nameOf('fd61::1:0:0:0:31'), 'L1');
    assert.equal(nameOf('10.61.3.112'), 'R12');
  });
});
