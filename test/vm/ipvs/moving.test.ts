/**
 * From mode ipvs to nftables and back, under traffic from outside and from the node itself: no connection is lost, none is
 * refused. IPVS keeps what it translates until it is over; then nothing of it is left.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import {
  type Child,
  clientIP,
  nodeIP,
  program,
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
import { bothCompared } from '../../both-families.js';

const skip = enterNetworkNamespace() || missingIpvs() || missingNft();
const trafficScript = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'process', 'traffic.js');

describe('moving between modes ipvs and nftables', { skip }, () => {
  const node = new IpvsNode();
  const flows: Child[] = [];
  before(async () => {
    await node.open();
    await node.serve(1, 2, 3);
    node.setPods(readyPods(1, 2, 3));
    // In mode nftables a service address is routed like any other, until it is translated.
    run('ip', 'route', 'add', 'default', 'via', clientIP);
  });
  after(async () => {
    for (const flow of flows) flow.kill('SIGKILL');
    await node.close();
  });

  const changeTo = async (mode: 'ipvs' | 'nftables', signal: NodeJS.Signals = 'SIGTERM'): Promise<Child> => {
    await node.stopProxy(signal);
    const proxy = node.spawnProxy(`--proxy-mode=${mode}`);
    await proxy.waitFor(bothCompared, 30_000);
    return proxy;
  };
  /** From outside to the cluster IP and a node port, and from this node. @param from with which of them to begin */
  const beginTraffic = async (from = 0): Promise<Child[]> => {
    const kinds = [
      () => node.script(1, '../../process/traffic.js', serviceIP, '80', clientIP),
      () => node.script(1, '../../process/traffic.js', nodeIP, String(nodePort), otherClientIP),
      () => start(process.execPath, trafficScript, serviceIP, '80'),
    ];
    const begun = kinds.slice(from).map((begin) => begin());
    flows.push(...begun);
    for (const flow of begun) await flow.waitFor('ready', 30_000);
    return begun;
  };
  const assertUnhurt = async (traffic: readonly Child[]): Promise<void> => {
    for (const [at, flow] of traffic.entries()) {
      const { newConnections, lines, newFailed, linesLost, errors } = await trafficResult(flow);
      assert.ok(newConnections > 5 && lines > 5, `traffic ${at} flowed`);
      assert.deepEqual(
        { newFailed, linesLost, errors },
        { newFailed: 0, linesLost: 0, errors: [] },
        `traffic ${at}`,
      );
    }
  };
  const connectionsSoFar = (): string[] =>
    [...run('ipvsadm', '-Ln', '--stats', '--exact').matchAll(/^TCP +\S+ +(\d+)/gm)].map(([, n = '']) => n);
  const hasInterface = (): boolean => spawnSync('ip', ['link', 'show', 'kube-ipvs0']).status === 0;
  const tables = (): string[] =>
    run('nft', 'list', 'tables')
      .split('\n')
      .filter((line) => line.startsWith('table ip kube-proxy'))
      .sort();
  const isGone = (): boolean =>
    !hasInterface() && ipvsadmLines().length === 0 && tables().join() === 'table ip kube-proxy';

  test('to nftables: connections that IPVS translates go on, new ones do not reach it, and then it is gone', async () => {
    await changeTo('ipvs');
    const traffic = await beginTraffic();
    const clients = await node.clients();
    const held = await clients.open(3);

    const proxy = await changeTo('nftables');
    await proxy.waitFor('Draining connections of another mode', 20_000);
    await sleep(500);
    const weights = ipvsadmLines()
      .slice(1)
      .map((line) => line.split(' ')[3]);
    assert.deepEqual([...new Set(weights)], ['0'], 'it takes no new connections');
    assert.match(run('ip', '-br', 'address', 'show', 'kube-ipvs0'), new RegExp(`${serviceIP}/32 *$`, 'm'));
    assert.deepEqual(tables(), ['table ip kube-proxy', 'table ip kube-proxy-ipvs']);
    const before = connectionsSoFar();
    await sleep(2_000);
    assert.deepEqual(connectionsSoFar(), before, 'new connections do not reach IPVS');
    const begunAfterwards = await beginTraffic(1);

    // Another process of kube-proxy goes on with it.
    await changeTo('nftables', 'SIGKILL');
    await sleep(1_000);
    await assertUnhurt([...traffic, ...begunAfterwards]);
    assert.deepEqual((await clients.ask()).sort(), held.sort());
    assert.ok(ipvsadmLines().length > 1, 'clients.ts still has connections');

    // A process of this node that came meanwhile has the service address for its own.
    const [late] = await beginTraffic(2);
    clients.child.kill('SIGKILL');
    await clients.child.end();
    await until(
      'IPVS is empty, and the address stays for the sake of that process',
      () => ipvsadmLines().length === 0,
      30_000,
    );
    assert.equal(hasInterface(), true);
    assert.deepEqual(tables(), ['table ip kube-proxy', 'table ip kube-proxy-ipvs']);
    // What nobody serves on an address that IPVS still holds is refused.
    const curious = await node.clients();
    assert.deepEqual(await curious.open(1, serviceIP, 81), ['ECONNREFUSED']);
    curious.child.kill('SIGKILL');
    await curious.child.end();
    assert.ok(late);
    await assertUnhurt([late]);
    await until('nothing of mode ipvs is left', isGone, 60_000);
  });

  test('back to ipvs: connections that connection tracking translates go on', async () => {
    const traffic = await beginTraffic();
    const proxy = await changeTo('ipvs');
    await proxy.waitFor(/Removed leftovers of another mode.*table ip kube-proxy"/, 20_000);
    await sleep(1_000);
    assert.equal(ipvsadmLines().length, 4);
    assert.deepEqual(tables(), ['table ip kube-proxy-ipvs']);
    const before = connectionsSoFar();
    await sleep(2_000);
    assert.notDeepEqual(connectionsSoFar(), before, 'new connections go through IPVS');
    await assertUnhurt(traffic);
  });

  test('back to ipvs before IPVS was through: what it held is taken over', async () => {
    const traffic = await beginTraffic();
    await changeTo('nftables');
    await sleep(1_000);
    await changeTo('ipvs');
    await sleep(1_000);
    const pods = [1, 2, 3].map((number) => `-> ${podIPOf(number)}:${port} Masq 1`);
    assert.deepEqual(
      ipvsadmLines()
        .slice(1)
        .map((line) => line.split(' ').slice(0, 4).join(' '))
        .sort(),
      pods,
    );
    await assertUnhurt(traffic);
  });

  test('virtual servers by mark, of policy Local, go on, too', async () => {
    node.setPods(readyPods(1, 2, 3), '  externalTrafficPolicy: Local\n');
    await changeTo('ipvs');
    const byMark = (): RegExpMatchArray[] => [
      ...run('ipvsadm', '-Ln').matchAll(/^FWM +\d+ \S+ *\n((?: +-> .*\n)*)/gm),
    ];
    const connectionsByMark = (): number =>
      byMark()
        .flatMap(([, endpoints = '']) => [...endpoints.matchAll(/Masq +\d+ +(\d+) /g)])
        .reduce((sum, [, active]) => sum + Number(active), 0);
    assert.equal(byMark().length, 1);
    const traffic = await beginTraffic();
    // For outsiders the node port is a virtual server by address.
    const ofThisNode = start(process.execPath, trafficScript, nodeIP, String(nodePort));
    flows.push(ofThisNode);
    await ofThisNode.waitFor('ready', 30_000);
    await until('this node is served by mark', () => connectionsByMark() > 0);

    const proxy = await changeTo('nftables');
    await proxy.waitFor('Draining connections of another mode', 20_000);
    await sleep(500);
    assert.ok(connectionsByMark() > 0, 'they are still there');
    assert.doesNotMatch(byMark().join(), /Masq +1 /, 'they take no new connections');
    // Their addresses are known to the next process, too.
    await changeTo('nftables', 'SIGKILL');
    await sleep(1_000);
    assert.ok(connectionsByMark() > 0);
    await assertUnhurt([...traffic, ofThisNode]);
    await until('nothing of mode ipvs is left', isGone, 60_000);
    node.setPods(readyPods(1, 2, 3));
  });

  test('to a kube-proxy that does not know our tables: what changes then is served', async () => {
    node.setPods([]);
    await changeTo('ipvs');
    const clients = await node.clients();
    assert.deepEqual(await clients.open(1), ['ECONNREFUSED']);
    await node.stopProxy();
    await sleep(6_000);
    assert.deepEqual(tables(), ['table ip kube-proxy-ipvs'], 'it is still there');
    // The first endpoint of a Service, a new port of its address, a new address: as upstream's mode ipvs would write them.
    run('ip', 'address', 'add', '10.177.0.51/32', 'dev', 'kube-ipvs0');
    for (const server of [`${serviceIP}:81`, '10.177.0.51:80'])
      run('ipvsadm', '-A', '-t', server, '-s', 'rr');
    for (const server of [virtualServer, `${serviceIP}:81`, '10.177.0.51:80'])
      run('ipvsadm', '-a', '-t', server, '-r', `${podIPOf(1)}:${port}`, '-m');
    // What comes from the node itself has a service address for its own.
    run('nft', 'add table ip rollback');
    run('nft', 'add chain ip rollback post { type nat hook postrouting priority 99; }');
    run('nft', `add rule ip rollback post ip saddr { ${serviceIP}, 10.177.0.51 } masquerade`);
    for (const [ip, at] of [
      [serviceIP, 80],
      [serviceIP, 81],
      ['10.177.0.51', 80],
    ] as const) {
      const [pod] = await clients.open(1, ip, at);
      assert.doesNotMatch(String(pod), /^E/, `${ip}:${at} from outside`);
      const traffic = start(process.execPath, trafficScript, ip, String(at));
      flows.push(traffic);
      await traffic.waitFor('ready', 30_000);
      await sleep(1_500);
      await assertUnhurt([traffic]);
    }
    clients.child.kill('SIGKILL');
    await clients.child.end();
    run('nft', 'delete table ip rollback');
    assert.equal(await start(program, '--cleanup').end(30_000), 0);
    node.setPods(readyPods(1, 2, 3));
  });

  test("from upstream's mode ipvs", async () => {
    await node.stopProxy();
    assert.equal(await start(program, '--cleanup').end(30_000), 0);
    writeFileSync('/proc/sys/net/ipv4/vs/conntrack', '1');
    run('ip', 'link', 'add', 'kube-ipvs0', 'type', 'dummy');
    for (const ip of [serviceIP, '10.177.0.51']) run('ip', 'address', 'add', `${ip}/32`, 'dev', 'kube-ipvs0');
    run('ipset', 'create', 'KUBE-NODE-PORT-TCP', 'bitmap:port', 'range', '0-65535');
    run('ipset', 'add', 'KUBE-NODE-PORT-TCP', String(nodePort));
    for (const server of [virtualServer, `${nodeIP}:${nodePort}`, '10.177.0.51:80']) {
      run('ipvsadm', '-A', '-t', server, '-s', 'rr');
      for (const number of [1, 2, 3])
        run('ipvsadm', '-a', '-t', server, '-r', `${podIPOf(number)}:${port}`, '-m');
    }
    // As KUBE-POSTROUTING does for what comes from the node itself.
    run('iptables', '-t', 'nat', '-N', 'KUBE-POSTROUTING');
    run('iptables', '-t', 'nat', '-A', 'KUBE-POSTROUTING', '-s', serviceIP, '-j', 'MASQUERADE');
    run('iptables', '-t', 'nat', '-A', 'POSTROUTING', '-j', 'KUBE-POSTROUTING');
    const traffic = await beginTraffic();

    const proxy = await changeTo('nftables');
    await proxy.waitFor('Draining connections of another mode', 20_000);
    await sleep(2_000);
    assert.equal(ipvsadmLines('10.177.0.51:80').length, 0, 'it had no connections');
    assert.doesNotMatch(run('ip', '-br', 'address', 'show', 'kube-ipvs0'), /10\.177\.0\.51/);
    assert.equal(run('ipset', 'list', '-n'), '');
    assert.doesNotMatch(run('iptables-save', '-t', 'nat'), /KUBE-/);
    assert.ok(
      ipvsadmLines(`${nodeIP}:${nodePort}`).length > 1,
      'a node port is known although its set is gone',
    );
    await changeTo('nftables');
    await assertUnhurt(traffic);
    await until('nothing of mode ipvs is left', isGone, 60_000);
  });
});
