import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { droppingChains } from './host-settings.js';

const skip = enterNetworkNamespace() || missingNft();

describe('firewalls of others', { skip }, () => {
  test('chains that drop by policy are found by hook, in every family', () => {
    const connection = NftablesConnection.open();
    try {
      assert.deepEqual(droppingChains(connection, 'forward'), []);
      for (const [family, table, hook, policy] of [
        ['ip', 'filter', 'forward', 'drop'],
        ['ip6', 'filter', 'forward', 'accept'],
        ['inet', 'firewalld', 'forward', 'drop'],
        ['inet', 'guard', 'input', 'drop'],
      ] as const) {
        run('nft', 'add', 'table', family, table);
        run(
          'nft',
          `add chain ${family} ${table} c { type filter hook ${hook} priority 0; policy ${policy}; }`,
        );
      }
      assert.deepEqual(droppingChains(connection, 'forward'), ['ip filter c', 'inet firewalld c']);
      assert.deepEqual(droppingChains(connection, 'input'), ['inet guard c']);
    } finally {
      connection.close();
    }
  });
});
