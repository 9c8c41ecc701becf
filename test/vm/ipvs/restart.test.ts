/** kill -9 and a new start, under traffic: what is right is not touched, and only what differs is written. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import {
  type Child,
  clientIP,
  generation,
  nodeIP,
  serviceIP,
  start,
  trafficResult,
} from '../../process/node.js';
import {
  IpvsNode,
  ipvsadmLines,
  missingIpvs,
  nodePort,
  otherClientIP,
  podIPOf,
  port,
  readyPods,
  until,
  virtualServer,
} from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs() || missingNft();

describe('kill -9 and a new start', { skip }, () => {
  const node = new IpvsNode();
  const monitors: Child[] = [];
  before(async () => {
    await node.open();
    await node.serve(1, 2, 3, 4);
    node.setPods(readyPods(1, 2, 3));
    await node.startProxy();
  });
  after(async () => {
    for (const monitor of monitors) monitor.kill('SIGKILL');
    await node.close();
  });

  /** Everything in IPVS but the connections; counters apart. */
  const servers = (): string => run('ipvsadm', '-Sn');
  /** Connections so far, by endpoint and virtual server. */
  const counters = (): number[] =>
    run('ipvsadm', '-Ln', '--stats', '--exact')
      .split('\n')
      .flatMap((line) => {
        const [, connections] = /(?:TCP|->) +\S+ +(\d+)/.exec(line) ?? [];
        return connections === undefined ? [] : [Number(connections)];
      });
  const countersOf = (ip: string): string[] =>
    run('ipvsadm', '-Ln', '--stats', '--exact')
      .split('\n')
      .flatMap((line) => {
        const [, connections] = new RegExp(`-> +${ip}:\\d+ +(\\d+)`).exec(line) ?? [];
        return connections === undefined ? [] : [connections];
      });
  /** Client's address and port, and endpoint, of established connections. */
  const connections = (): string[] =>
    run('ipvsadm', '-Lcn')
      .split('\n')
      .filter((line) => line.includes('ESTABLISHED'))
      .map((line) => line.trim().split(/ +/).slice(3).join(' '))
      .sort();
  const settings = (): string =>
    ['vs/conntrack', 'vs/expire_nodest_conn', 'vs/expire_quiescent_template', 'ip_forward']
      .map((name) => run('cat', `/proc/sys/net/ipv4/${name}`))
      .join('');

  test('nothing is touched', async () => {
    const clients = await node.clients();
    const answers = await clients.open(6);
    await until('all are established', () => connections().length === 6);
    const [held, listed, numbers, sysctls] = [connections(), servers(), counters(), settings()];
    const rules = generation();
    const traffic = [
      node.script(1, '../../process/traffic.js', serviceIP, '80', clientIP),
      node.script(1, '../../process/traffic.js', nodeIP, String(nodePort), otherClientIP),
    ];
    for (const child of traffic) await child.waitFor('ready', 30_000);
    monitors.push(start('ip', '-o', 'monitor', 'address', 'link'), start('nft', 'monitor'));
    await sleep(1_000);

    await node.stopProxy('SIGKILL');
    const proxy = await node.startProxy();
    await sleep(1_000);

    assert.equal(servers(), listed, 'virtual servers and endpoints');
    assert.equal(generation(), rules, 'nothing was written to nf_tables');
    assert.equal(settings(), sysctls);
    assert.deepEqual(
      monitors.map(({ output }) => output),
      ['', ''],
      'no notification of addresses, interfaces, rules',
    );
    assert.equal(proxy.output.match(/"Resync complete" .*transactions=0 /g)?.length, 2);
    const now = connections();
    assert.deepEqual(
      held.filter((connection) => !now.includes(connection)),
      [],
      'every connection is remembered',
    );
    assert.deepEqual(
      counters().filter((count, at) => count < (numbers[at] ?? 0)),
      [],
      'counters go on',
    );
    assert.deepEqual((await clients.ask()).sort(), [...answers].sort());
    for (const child of traffic) {
      const { newConnections, lines, newFailed, linesLost, errors } = await trafficResult(child);
      assert.ok(newConnections > 5 && lines > 5, 'traffic flowed');
      assert.deepEqual({ newFailed, linesLost, errors }, { newFailed: 0, linesLost: 0, errors: [] });
    }
  });

  test('only the difference is written: endpoints that came and went meanwhile, and what somebody else did', async () => {
    const clients = await node.clients();
    await clients.open(6);
    await node.stopProxy('SIGKILL');
    const kept = (await clients.ask()).filter((answer) => answer === podIPOf(1)).length;
    assert.ok(kept > 0);
    node.setPods(readyPods(1, 2, 4));
    run('ipvsadm', '-d', '-t', virtualServer, '-r', `${podIPOf(2)}:${port}`);
    run('ipvsadm', '-a', '-t', virtualServer, '-r', '10.61.9.9:9001', '-m');
    const rules = generation();
    const counted = countersOf(podIPOf(1));
    await node.startProxy();

    assert.deepEqual(
      ipvsadmLines()
        .slice(1)
        .map((line) => line.split(' ').slice(1, 4).join(' '))
        .sort(),
      [
        `${podIPOf(1)}:${port} Masq 1`,
        `${podIPOf(2)}:${port} Masq 1`,
        // Drained: it has connections.
        `${podIPOf(3)}:${port} Masq 0`,
        `${podIPOf(4)}:${port} Masq 1`,
      ],
    );
    assert.equal(
      (await clients.ask()).filter((answer) => answer === podIPOf(1)).length,
      kept,
      'connections of an endpoint that stayed',
    );
    assert.equal((await clients.ask()).includes(podIPOf(3)), true, 'and of one that is drained');
    assert.deepEqual(countersOf(podIPOf(1)), counted, 'its counters were not begun anew');
    // The set of pods that may talk to themselves; nothing else.
    assert.ok(generation() - rules <= 2, `${generation() - rules} transactions`);
  });
});
