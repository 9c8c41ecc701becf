/** Where connections go, as connection tracking has it. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { test } from 'node:test';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { conntrackDestinations } from './sync-order.js';

const skip = enterNetworkNamespace() || missingNft();

test('destinations of connection tracking, as many as are asked for', { skip }, async () => {
  run('nft', 'add', 'table', 'ip', 'watching');
  run('nft', 'add', 'chain', 'ip', 'watching', 'out', '{ type filter hook output priority 0; }');
  run('nft', 'add', 'rule', 'ip', 'watching', 'out', 'ct', 'state', 'new', 'counter');
  const socket = createSocket('udp4');
  for (const port of [5301, 5302, 5303])
    await new Promise<void>((resolve) => {
      socket.send('x', port, '127.0.0.1', () => {
        resolve();
      });
    });
  socket.close();
  const seen: string[] = [];
  conntrackDestinations('IPv4', (protocol, ip, port) => seen.push(`${protocol} ${ip}:${port}`));
  for (const port of [5301, 5302, 5303]) assert.ok(seen.includes(`UDP 127.0.0.1:${port}`), seen.join());
  const some: string[] = [];
  conntrackDestinations('IPv4', (protocol, ip, port) => some.push(`${protocol} ${ip}:${port}`), 2);
  assert.equal(some.filter((text) => text.startsWith('UDP')).length, 2);
  conntrackDestinations('IPv6', () => assert.fail('there is none'));
});
