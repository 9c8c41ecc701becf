import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { test } from 'node:test';
import { formatAddress } from '../address.js';
import { Batch, expr, NftablesConnection } from '../nftables/index.js';
import { enterNetworkNamespace } from '../testing/namespace.js';
import { ConntrackConnection, type FlowIdentity } from './index.js';

const skip = enterNetworkNamespace();
const UDP = 17;
const TCP = 6;

/** Connections are tracked only once a rule looks at them. */
function track(family: 'ip' | 'ip6'): void {
  const batch = new Batch(family, 'track');
  batch.addTable();
  batch.addChain('out', { base: { type: 'filter', hook: 'output', priority: 0 } });
  batch.addRule('out', [expr.ct('state', 0), expr.cmp('eq', 0, Buffer.alloc(4))]);
  const connection = NftablesConnection.open();
  connection.commit(batch);
  connection.close();
}

async function send(family: 'ip' | 'ip6', ports: readonly number[]): Promise<void> {
  const socket = createSocket(family === 'ip' ? 'udp4' : 'udp6');
  for (const port of ports) {
    await new Promise<void>((resolve, reject) => {
      socket.send('x', port, family === 'ip' ? '127.0.0.1' : '::1', (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
  }
  socket.close();
}

for (const family of ['ip', 'ip6'] as const) {
  test(`${family}: list and delete`, { skip }, async () => {
    track(family);
    await send(family, [5001, 5002, 5003]);
    const connection = ConntrackConnection.open();
    const localhost = family === 'ip' ? '127.0.0.1' : '::1';
    const ports = (): number[] => {
      const found: number[] = [];
      connection.listFlows(family, { protocol: UDP }, (flow) => {
        assert.equal(flow.protocol, UDP);
        assert.equal(formatAddress(flow.original.source), localhost);
        assert.equal(formatAddress(flow.original.destination), localhost);
        assert.equal(flow.reply.sourcePort, flow.original.destinationPort);
        assert.equal(flow.reply.destinationPort, flow.original.sourcePort);
        assert.equal(flow.zone, 0);
        found.push(flow.original.destinationPort);
      });
      return found.sort();
    };
    assert.deepEqual(ports(), [5001, 5002, 5003]);

    const stale: FlowIdentity[] = [];
    connection.listFlows(family, { protocol: UDP }, (flow) => {
      if (flow.original.destinationPort === 5002) stale.push(flow.identity());
    });
    const [identity] = stale;
    assert.ok(identity);
    assert.equal(connection.deleteFlow(identity), true);
    assert.equal(connection.deleteFlow(identity), false, 'gone already');
    assert.deepEqual(ports(), [5001, 5003]);

    let others = 0;
    connection.listFlows(family, { protocol: TCP }, () => others++);
    connection.listFlows(family === 'ip' ? 'ip6' : 'ip', { protocol: TCP }, () => others++);
    assert.equal(others, 0);
    connection.close();
  });
}

test('an identity without a tuple would delete everything, and is refused', { skip }, () => {
  const connection = ConntrackConnection.open();
  assert.throws(
    () => connection.deleteFlow({ addressFamily: 2, originalTuple: Buffer.alloc(0), id: undefined, zone: 0 }),
    { code: 'EINVAL' },
  );
  connection.close();
});
