/** `kube-proxy ipvs` and `kube-proxy migration-report` with real connections, with a running proxy and with a dead one. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { nodeIP, program, serviceIP, start } from '../../process/node.js';
import { IpvsNode, missingIpvs, nodePort, podIPOf, port, readyPods, until } from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs();

describe('kube-proxy ipvs', { skip }, () => {
  const node = new IpvsNode();
  const [first, second, third] = [1, 2, 3].map(podIPOf);

  before(async () => {
    await node.open();
    await node.serve(1, 2, 3);
    node.setPods(readyPods(1, 2, 3));
    await node.startProxy('--ipvs-scheduler=lc');
  });
  after(() => node.close());

  const show = async (...more: string[]): Promise<string> => {
    const child = start(program, 'ipvs', '--manifests', node.manifests, ...more);
    assert.equal(await child.end(30_000), 0, child.output);
    return child.output.replaceAll(/ {2,}/g, '  ');
  };
  const table = (active: readonly number[], weights: readonly number[], notes: readonly string[]): string =>
    [
      'PROTO  VIRTUAL SERVER  SERVICE PORT, POD  SCHEDULER  WEIGHT  ACTIVE  INACTIVE  NOTES',
      `TCP  ${serviceIP}:80  orchard/pear:web  lc  ${active.reduce((sum, n) => sum + n, 0)}  0`,
      ...[first, second, third].map(
        (ip, at) =>
          `  -> ${ip ?? ''}:${port}  orchard/pear-${ip?.split('.')[3] ?? ''}  ${weights[at] ?? 1}  ${active[at] ?? 0}  0${notes[at] ?? ''}`,
      ),
      '',
    ].join('\n');

  test('names, weights, and connections that are open', async () => {
    const clients = await node.clients();
    assert.equal((await clients.open(6)).length, 6);
    await until('all are seen as active', () => / 2 +0 /.test(run('ipvsadm', '-Ln')));
    const text = await show('--service', 'pear');
    assert.ok(text.startsWith(table([2, 2, 2], [1, 1, 1], [])), text);
    assert.ok(text.includes(`TCP  ${nodeIP}:${nodePort}  orchard/pear:web  lc`), text);

    // An endpoint that drains, and a weight that somebody gave by hand.
    node.setPods(readyPods(1, 2));
    await until('the third drains', () =>
      new RegExp(`${third ?? ''}:${port} +Masq +0 +2 `).test(run('ipvsadm', '-Ln')),
    );
    run('ipvsadm', '-e', '-t', `${serviceIP}:80`, '-r', `${second ?? ''}:${port}`, '-m', '-w', '5');
    const draining = await show('-n', 'orchard');
    // The manifest does not name the third pod any more.
    const expected = table([2, 2, 2], [1, 5, 0], ['', '', '  draining']).replace('orchard/pear-33  ', '');
    assert.ok(draining.startsWith(expected), draining);
    assert.deepEqual((await clients.ask()).sort(), [first, first, second, second, third, third]);
    assert.equal(await show('-n', 'elsewhere'), `${draining.split('\n')[0] ?? ''}\n`);
  });

  test('kube-proxy migration-report tells what will be different', async () => {
    const report = async (...more: string[]): Promise<string> => {
      const child = start(program, 'migration-report', ...more);
      assert.equal(await child.end(30_000), 0, child.output);
      return child.output;
    };
    const before = run('ipvsadm', '-Sn') + run('nft', 'list', 'ruleset') + run('ip', 'address');
    const rows: unknown = JSON.parse(await report('-o', 'json', '--proxy-mode=nftables'));
    assert.ok(Array.isArray(rows));
    const now = new Map(rows.map(({ topic, now: text }: Record<string, string>) => [topic, text]));
    assert.deepEqual(
      ['established connections', 'choice of an endpoint', 'weights given by hand', 'node ports'].map(
        (topic) => now.get(topic),
      ),
      [
        '6 active and 0 closing or UDP, through 1 of 2 virtual servers',
        'lc (2 virtual servers)',
        `${second ?? ''}:${port} of orchard/pear:web: 5`,
        `on ${nodeIP}; not on loopback addresses`,
      ],
    );
    assert.match(now.get('service addresses') ?? '', /^1 on interface kube-ipvs0/);
    assert.match(now.get('idle TCP connections') ?? '', /^forgotten after 15 min/);
    assert.match(await report(), /^TOPIC +NOW, IN MODE IPVS +IN MODE NFTABLES +WHAT TO DO$/m);
    assert.equal(run('ipvsadm', '-Sn') + run('nft', 'list', 'ruleset') + run('ip', 'address'), before);
  });

  test('kube-proxy ipvs tells the same when the proxy is dead, and as JSON', async () => {
    const before = await show();
    await node.stopProxy('SIGKILL');
    assert.equal(await show(), before);
    const parsed: unknown = JSON.parse(await show('--output=json'));
    assert.ok(Array.isArray(parsed));
    const shown = parsed.map((server: Record<string, unknown>) => [
      server['servicePort'],
      server['scheduler'],
      server['owner'],
    ]);
    assert.deepEqual(
      shown,
      Array.from({ length: 2 }, () => ['orchard/pear:web', 'lc', 'kube-proxy']),
    );
  });

  test("somebody else's virtual server is shown as such", async () => {
    run('ipvsadm', '-A', '-t', '192.0.2.80:443', '-s', 'wrr');
    run('ipvsadm', '-a', '-t', '192.0.2.80:443', '-r', '192.0.2.81:443', '-g', '-w', '7');
    assert.match(
      await show(),
      /^TCP {2}192\.0\.2\.80:443 {2}wrr {2}0 {2}0 {2}not kube-proxy's\n {2}-> 192\.0\.2\.81:443 {2}7 {2}0 {2}0 {2}route$/m,
    );
    run('ipvsadm', '-D', '-t', '192.0.2.80:443');
  });
});
