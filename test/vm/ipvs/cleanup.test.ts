/** `--cleanup` after our mode ipvs: everything of ours goes, connections or not; a director of somebody else stays. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { program, start } from '../../process/node.js';
import { IpvsNode, ipvsadmLines, missingIpvs, readyPods } from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs() || missingNft();

describe('--cleanup after mode ipvs', { skip }, () => {
  const node = new IpvsNode();
  before(async () => {
    await node.open();
    await node.serve(1, 2);
    node.setPods(readyPods(1, 2));
    await node.startProxy();
  });
  after(() => node.close());

  test('virtual servers, interface and tables go; those of others stay', async () => {
    run('ipvsadm', '-A', '-t', '192.0.2.80:443', '-s', 'wrr');
    const clients = await node.clients();
    assert.equal((await clients.open(2)).length, 2);
    await node.stopProxy();
    const cleanup = start(program, '--cleanup');
    assert.equal(await cleanup.end(30_000), 0, cleanup.output);
    for (const what of [
      '2 IPVS virtual servers',
      'interface kube-ipvs0',
      'nftables table ip kube-proxy-ipvs',
      'nftables table ip6 kube-proxy-ipvs',
    ])
      assert.ok(cleanup.output.includes(`removed ${what}\n`), `${what}:\n${cleanup.output}`);
    assert.deepEqual(ipvsadmLines('192.0.2.80:443'), ['TCP 192.0.2.80:443 wrr']);
    assert.equal(run('ipvsadm', '-Sn').trim().split('\n').length, 1);
    assert.equal(spawnSync('ip', ['link', 'show', 'kube-ipvs0']).status, 1);
    assert.doesNotMatch(run('nft', 'list', 'tables'), /kube-proxy/);
    run('ipvsadm', '-C');
  });
});
