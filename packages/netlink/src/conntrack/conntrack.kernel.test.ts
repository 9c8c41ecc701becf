import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { formatAddress, parseAddress } from '../address.js';
import { Batch, expr, NftablesConnection } from '../nftables/index.js';
import { enterNetworkNamespace } from '../testing/namespace.js';
import { ConntrackConnection, type Flow, type FlowFilter, type FlowIdentity } from './index.js';
import { createConntrackEntries } from './testing.js';

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

test('statistics are those of this network namespace', { skip }, () => {
  const connection = ConntrackConnection.open();
  const before = connection.usage();
  createConntrackEntries(
    Array.from({ length: 7 }, (_, i) => ({
      protocol: UDP,
      client: '10.61.7.7',
      clientPort: 1000 + i,
      destination: '10.96.0.10',
      destinationPort: 53,
    })),
  );
  const max = Number(readFileSync('/proc/sys/net/netfilter/nf_conntrack_max', 'utf8'));
  assert.ok(max > 0);
  assert.deepEqual(connection.usage(), { entries: before.entries + 7, max });
  const { drop, earlyDrop, chainTooLong } = connection.stats();
  assert.deepEqual([drop, earlyDrop, chainTooLong], [0, 0, 0]);
  connection.close();
});

for (const family of ['ip', 'ip6'] as const) {
  test(
    `${family}: every filter delivers what it says, on the event loop and beside it`,
    { skip },
    async () => {
      const at = (host: number): string => (family === 'ip' ? `10.99.0.${host}` : `fd99::${host}`);
      const bytes = (host: number): Buffer => parseAddress(at(host));
      const entries = [
        { to: 1, port: 53, from: 11, answered: true },
        { to: 1, port: 54, from: 11, answered: true },
        { to: 2, port: 53, from: 11, answered: false },
        { to: 2, port: 53, from: 12, answered: true },
      ];
      createConntrackEntries(
        entries.map(({ to, port, from, answered }, i) => ({
          protocol: UDP,
          client: at(200),
          clientPort: 40_001 + i,
          destination: at(to),
          destinationPort: port,
          endpoint: at(from),
          endpointPort: from === 11 ? 5353 : 5354,
          unanswered: !answered,
        })),
      );
      const cases: readonly (readonly [Omit<FlowFilter, 'protocol'>, number[]])[] = [
        [{}, [1, 2, 3, 4]],
        [{ originalDestination: { port: 53 } }, [1, 3, 4]],
        [{ originalDestination: { address: bytes(1), port: 53 } }, [1]],
        [{ originalDestination: { address: bytes(3), port: 53 } }, []],
        [{ replySource: { port: 5353 } }, [1, 2, 3]],
        [{ replySource: { address: bytes(12), port: 5354 } }, [4]],
        [{ replySource: { address: bytes(12), port: 5353 } }, []],
        [{ originalDestination: { address: bytes(2), port: 53 }, replySource: { port: 5353 } }, [3]],
        [{ unanswered: true }, [3]],
        [{ unanswered: true, replySource: { address: bytes(12), port: 5354 } }, []],
      ];
      const connection = ConntrackConnection.open();
      for (const [filter, expected] of cases) {
        const found = async (beside: boolean): Promise<number[]> => {
          const list: number[] = [];
          const onFlow = ({ original }: Flow): void => {
            if (formatAddress(original.source) === at(200)) list.push(original.sourcePort - 40_000);
          };
          if (beside) await connection.listFlowsAsync(family, { protocol: UDP, ...filter }, onFlow);
          else connection.listFlows(family, { protocol: UDP, ...filter }, onFlow);
          return list.sort();
        };
        assert.deepEqual(await found(false), expected, JSON.stringify(filter));
        assert.deepEqual(await found(true), expected, JSON.stringify(filter));
      }
      connection.close();
    },
  );
}
