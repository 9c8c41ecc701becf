/** Somebody deletes what is ours: it is back soon, and new connections work. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../../patience.js';
import { type Child, nodeIP, serviceIP } from '../../process/node.js';
import {
  type Clients,
  IpvsNode,
  missingIpvs,
  nodePort,
  podIPOf,
  port,
  readyPods,
  until,
  virtualServer,
} from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs() || missingNft();

const table = 'kube-proxy-ipvs';

const deeds: Readonly<Record<string, readonly (readonly string[])[]>> = {
  'a virtual server is deleted': [['ipvsadm', '-D', '-t', virtualServer]],
  'all virtual servers are deleted': [['ipvsadm', '-C']],
  'a virtual server gets another scheduler': [['ipvsadm', '-E', '-t', virtualServer, '-s', 'lc']],
  'an endpoint is deleted': [['ipvsadm', '-d', '-t', virtualServer, '-r', `${podIPOf(2)}:${port}`]],
  'an endpoint is added': [['ipvsadm', '-a', '-t', virtualServer, '-r', '10.61.9.9:9001', '-m']],
  'an endpoint gets another way of forwarding': [
    ['ipvsadm', '-e', '-t', virtualServer, '-r', `${podIPOf(2)}:${port}`, '-m', '-w', '0'],
  ],
  'an address is taken off the interface': [['ip', 'address', 'del', `${serviceIP}/32`, 'dev', 'kube-ipvs0']],
  'the interface is deleted': [['ip', 'link', 'del', 'kube-ipvs0']],
  'the table is deleted': [['nft', 'delete', 'table', 'ip', table]],
  'an element is deleted': [['nft', 'delete', 'element', 'ip', table, 'bound-ips', `{ ${serviceIP} }`]],
  'everything is deleted': [
    ['nft', 'flush', 'ruleset'],
    ['ipvsadm', '-C'],
    ['ip', 'link', 'del', 'kube-ipvs0'],
  ],
};

describe('damage by others', { skip }, () => {
  const node = new IpvsNode();
  let proxy: Child | undefined;
  let clients: Clients | undefined;
  before(async () => {
    await node.open();
    await node.serve(1, 2, 3);
    node.setPods(readyPods(1, 2, 3));
    proxy = await node.startProxy();
    clients = await node.clients();
  });
  after(() => node.close());

  const noticed = (): number => proxy?.output.split('Rules modified by another program').length ?? 0;
  const state = (): string =>
    [
      run('ipvsadm', '-Sn').split('\n').sort().join('\n'),
      run('ip', '-br', 'address')
        .match(/^kube-ipvs0 .*$/m)?.[0]
        .replaceAll(/ +/g, ' ') ?? 'no interface',
      // A table that was made anew is listed after the other one.
      ...run('nft', '-s', 'list', 'ruleset')
        .split(/^(?=table )/m)
        .sort(),
    ].join('\n');

  for (const [what, commands] of Object.entries(deeds)) {
    test(what, async (t) => {
      const right = state();
      const before = noticed();
      const begin = Date.now();
      for (const [command = '', ...args] of commands) run(command, ...args);
      // Of what the kernel tells, nothing may be left to see by now.
      await until('it is noticed', () => noticed() > before, 15_000);
      await until('everything is as it was', () => state() === right, 10_000);
      t.diagnostic(`repaired after ${Date.now() - begin} ms`);
      const pods = [1, 2, 3].map(podIPOf);
      assert.deepEqual((await clients?.open(3))?.sort(), pods);
      assert.deepEqual((await clients?.open(3, nodeIP, nodePort))?.sort(), pods);
      // What comes sooner after the last is taken for a fight.
      await sleep(patiently(100));
      assert.equal(proxy?.process.exitCode, null);
    });
  }
});
