import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { enterNetworkNamespace, run } from '../testing/namespace.js';
import { IpsetConnection } from './index.js';

const skip =
  enterNetworkNamespace() ||
  (spawnSync('ipset', ['version']).status === 0 ? false : 'ipset is not installed, or the kernel has none');

function within<T>(use: (sets: IpsetConnection) => T): T {
  const sets = IpsetConnection.open();
  try {
    return use(sets);
  } finally {
    sets.close();
  }
}

test('names, entries and the end of sets', { skip }, () => {
  run('ipset', 'create', 'pairs', 'hash:ip,port');
  run('ipset', 'add', 'pairs', '192.0.2.7,sctp:132');
  run('ipset', 'add', 'pairs', '192.0.2.8,udp:53');
  run('ipset', 'create', 'pairs6', 'hash:ip,port', 'family', 'inet6');
  run('ipset', 'add', 'pairs6', '2001:db8::7,tcp:80');
  run('ipset', 'create', 'ports', 'bitmap:port', 'range', '0-65535');
  run('ipset', 'add', 'ports', '30000-30002');
  run('ipset', 'create', 'addresses', 'hash:ip');
  within((sets) => {
    assert.deepEqual(sets.listNames().sort(), ['addresses', 'pairs', 'pairs6', 'ports']);
    assert.deepEqual(
      sets.listEntries('pairs').sort((a, b) => (a.port ?? 0) - (b.port ?? 0)),
      [
        { address: '192.0.2.8', protocol: 17, port: 53 },
        { address: '192.0.2.7', protocol: 132, port: 132 },
      ],
    );
    assert.deepEqual(sets.listEntries('pairs6'), [{ address: '2001:db8::7', protocol: 6, port: 80 }]);
    assert.deepEqual(
      sets.listEntries('ports').map(({ port }) => port),
      [30000, 30001, 30002],
    );
    assert.deepEqual(sets.listEntries('addresses'), []);
    assert.throws(() => sets.listEntries('nothing'), { code: 'ENOENT' });

    assert.equal(sets.destroy('pairs'), 'destroyed');
    assert.equal(sets.destroy('pairs'), 'gone');
    assert.deepEqual(sets.listNames().sort(), ['addresses', 'pairs6', 'ports']);
  });
});

test('a set of many entries comes in several messages', { skip }, () => {
  run('ipset', 'create', 'many', 'bitmap:port', 'range', '0-65535');
  run('ipset', 'add', 'many', '1-20000');
  within((sets) => {
    const ports = sets.listEntries('many').map(({ port }) => port);
    assert.equal(ports.length, 20_000);
    assert.equal(new Set(ports).size, 20_000);
  });
});

test('a set in use', { skip }, () => {
  run('ipset', 'create', 'inner', 'hash:ip');
  run('ipset', 'create', 'outer', 'list:set');
  run('ipset', 'add', 'outer', 'inner');
  within((sets) => {
    assert.equal(sets.destroy('inner'), 'busy');
    assert.equal(sets.destroy('outer'), 'destroyed');
    assert.equal(sets.destroy('inner'), 'destroyed');
  });
});
