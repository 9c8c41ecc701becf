/**
 * The iptables dataplane against the kernel, with both kinds of the tool, in a namespace of its own: random changes, restarts,
 * damage, refusals. What the kernel holds is read with iptables-save.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger, type Logger } from '../../log/logger.js';
import { Batch, NftablesConnection, types } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { Endpoint, IPFamily, ServicePort } from '../../model/types.js';
import { TableDamagedError } from '../backend.js';
import { World } from '../testing/world.js';
import { ensureCounters, readCounter } from './counters.js';
import { IptablesError, type IptablesErrorCode } from './tool/errors.js';
import { IptablesFamily, type IptablesFamilyOptions } from './family.js';
import { ForeignChanges } from './watch/foreign-changes.js';
import { kinds, missingTool, toolFolder, type ToolFolder } from './testing/tools.js';
import { RuleWatch } from './watch/watch.js';

const noNamespace = enterNetworkNamespace();
const patienceMs = 10_000;

function optionsOf(
  folder: ToolFolder,
  family: IPFamily,
  more: Partial<IptablesFamilyOptions> = {},
): IptablesFamilyOptions {
  return {
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: {
      kind: 'cidr',
      cidr: family === 'IPv4' ? { ip: '10.61.0.0', prefixLength: 16 } : { ip: 'fd00:61::', prefixLength: 32 },
    },
    nodePortAddresses: 'all',
    dropInvalid: true,
    log: silentLogger,
    tool: { path: folder.path },
    onDamage: () => undefined,
    ...more,
  };
}

function endpoint(host: number): Endpoint {
  return { ip: `10.61.${host >> 8}.${host & 255}`, port: 9000, local: false, nodeUnknown: false };
}

function servicePort(
  number: number,
  endpoints: readonly Endpoint[],
  more: Partial<ServicePort> = {},
): ServicePort {
  const ip = `10.177.${number >> 8}.${number & 255}`;
  return {
    key: `ns/svc-${number}/TCP`,
    name: `ns/svc-${number}`,
    namespace: 'ns',
    serviceName: `svc-${number}`,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: ip,
    port: 80,
    addresses: [
      {
        kind: 'ClusterIP',
        ip,
        port: 80,
        scope: 'internal',
        policy: 'Cluster',
        fallback: endpoints.length > 0 ? 'serve' : 'reject',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints: endpoints,
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
    ...more,
  };
}

const three = [endpoint(1), endpoint(2), endpoint(3)];

function hasCode(code: IptablesErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof IptablesError && error.code === code;
}

for (const kind of kinds) {
  describe(`iptables (${kind})`, { skip: noNamespace !== false ? noNamespace : missingTool(kind) }, () => {
    let folder: ToolFolder;
    const families: IptablesFamily[] = [];

    const make = (more: Partial<IptablesFamilyOptions> = {}, family: IPFamily = 'IPv4'): IptablesFamily => {
      const made = new IptablesFamily(optionsOf(folder, family, more));
      families.push(made);
      return made;
    };
    const tool = (command: string, ...args: readonly string[]): string =>
      run(path.join(folder.path, command), ...args);
    const save = (table: string): string => tool('iptables-save', '-t', table);
    /** Refuses input that holds the words, as a tool or kernel does that does not know them. */
    const refuse = (words: string): void => {
      unlinkSync(path.join(folder.path, 'iptables-restore'));
      writeFileSync(
        path.join(folder.path, 'iptables-restore'),
        [
          '#!/bin/bash',
          'input=$(/bin/cat)',
          `case "$1$input" in`,
          `*'${words}'*) echo "iptables-restore: line 3 failed" >&2; exit 1;;`,
          'esac',
          `printf '%s\\n' "$input" | exec -a iptables-restore /usr/sbin/xtables-${kind === 'legacy' ? 'legacy' : 'nft'}-multi "$@"`,
          '',
        ].join('\n'),
        { mode: 0o755 },
      );
    };

    before(() => {
      folder = toolFolder(kind);
      process.env['XTABLES_LOCKFILE'] = folder.lock;
    });
    afterEach(() => {
      for (const family of families.splice(0)) family.close();
      folder.remove();
      folder = toolFolder(kind);
      process.env['XTABLES_LOCKFILE'] = folder.lock;
      for (const command of ['iptables', 'ip6tables']) {
        for (const table of ['nat', 'filter', 'mangle']) {
          tool(command, '-t', table, '-F');
          tool(command, '-t', table, '-X');
        }
      }
    });
    after(() => {
      folder.remove();
    });

    for (const family of ['IPv4', 'IPv6'] as const) {
      test(`random changes (${family}): what others wrote stays, a restart finds nothing to write`, async () => {
        const command = family === 'IPv4' ? 'iptables' : 'ip6tables';
        tool(command, '-t', 'nat', '-N', 'CNI-HOSTPORT');
        tool(command, '-t', 'nat', '-A', 'CNI-HOSTPORT', '-p', 'tcp', '--dport', '8080', '-j', 'RETURN');
        tool(command, '-A', 'FORWARD', '-i', 'cni0', '-j', 'ACCEPT');
        const foreign = (): string[] =>
          (tool(`${command}-save`) + '\n')
            .split('\n')
            .filter((line) => !line.includes('KUBE-') && /^(-A|:CNI)/.test(line));
        const before = foreign();
        const world = new World(new Random(family === 'IPv4' ? 3 : 4), family);
        for (let i = 0; i < 6; i++) world.step();
        const first = make({ guardLoopback: family === 'IPv4' }, family);
        assert.deepEqual((await first.resync(world.ports.values())).failures, []);
        for (let round = 0; round < 30; round++) {
          const report = await first.apply({ family, ...world.step() });
          assert.deepEqual(report.failures, []);
          if (round % 5 !== 4) continue;
          const second = make({ guardLoopback: family === 'IPv4' }, family);
          const found = await second.resync(world.ports.values());
          assert.deepEqual([found.transactions, found.elementsAdded, found.elementsDeleted], [0, 0, 0]);
          assert.deepEqual(second.statistics.rules, first.statistics.rules);
        }
        assert.deepEqual(foreign(), before);
      });
    }

    test('a change writes the chains that it changes', async () => {
      const family = make();
      const ports = Array.from({ length: 400 }, (_, i) => servicePort(i, three));
      await family.resync(ports);
      const more = servicePort(17, [...three, endpoint(4)]);
      const report = await family.apply({ family: 'IPv4', upserted: [more], removed: [] });
      assert.equal(report.transactions, 1);
      assert.deepEqual([report.elementsAdded, report.elementsDeleted], [5, 4]);
      const gone = await family.apply({ family: 'IPv4', upserted: [], removed: ['ns/svc-17/TCP'] });
      assert.ok(gone.elementsAdded < 40, String(gone.elementsAdded));
      assert.doesNotMatch(save('nat'), /svc-17 /);
      assert.match(save('nat'), /svc-18 /);
    });

    test('clients that affinity remembers go with the endpoint, the Service, and a shorter timeout', async () => {
      const lists = (): string[] =>
        save('nat')
          .split('\n')
          .flatMap((line) => /--update --seconds (\d+) .*--name (\S+)/.exec(line)?.slice(1).join(' ') ?? []);
      const family = make();
      const port = (number: number, endpoints: readonly Endpoint[], affinitySeconds: number): ServicePort =>
        servicePort(number, endpoints, { affinitySeconds });
      const [one, two, other] = [endpoint(1), endpoint(2), endpoint(3)];
      await family.resync([port(1, [one, two], 10_800)]);
      const before = lists();
      assert.equal(before.length, 2);
      await family.apply({ family: 'IPv4', upserted: [port(1, [one, two], 2)], removed: [] });
      assert.deepEqual(
        lists(),
        before.map((line) => line.replace('10800', '2')),
      );
      // The kernel forgets a list together with the last rule that names it.
      await family.apply({ family: 'IPv4', upserted: [port(1, [other], 2)], removed: [] });
      assert.ok(lists().every((line) => !before.some((was) => was.endsWith(line.split(' ')[1] ?? ''))));
      const known = lists();
      await family.apply({
        family: 'IPv4',
        upserted: [port(2, [other], 2)],
        removed: ['ns/svc-1/TCP'],
      });
      assert.notDeepEqual(lists(), known);
    });

    test('a process that starts over deletes former refusals when what they refused is served', async () => {
      await make().resync([servicePort(1, three), servicePort(2, [])]);
      const family = make();
      await family.resync([servicePort(1, []), servicePort(2, three)]);
      assert.match(save('filter'), /svc-1 has no endpoints/);
      assert.match(save('filter'), /svc-2 has no endpoints/);
      assert.match(save('nat'), /svc-2 cluster IP/);
      await family.deleteDeferred(family.deferredDueAt ?? NaN);
      assert.doesNotMatch(save('filter'), /svc-2 has no endpoints/);
      const again = make();
      const found = await again.resync([servicePort(1, []), servicePort(2, three)]);
      assert.deepEqual([found.transactions, again.deferredDueAt], [0, undefined]);
    });

    test('a refusal is there before the address is no longer served, and goes afterwards', async () => {
      const family = make();
      await family.resync([servicePort(1, three), servicePort(2, [])]);
      assert.match(save('filter'), /svc-2 has no endpoints/);
      // One run, two steps: filter, nat.
      const report = await family.apply({
        family: 'IPv4',
        upserted: [servicePort(1, []), servicePort(2, three)],
        removed: [],
      });
      assert.equal(report.transactions, 2);
      assert.match(save('filter'), /svc-1 has no endpoints/);
      assert.match(save('nat'), /svc-2 cluster IP/);
      // Packets may be under way that were not translated.
      assert.match(save('filter'), /svc-2 has no endpoints/);
      const dueAt = family.deferredDueAt;
      assert.ok(dueAt !== undefined && dueAt > performance.now());
      assert.equal((await family.deleteDeferred(dueAt - 1)).transactions, 0);
      assert.equal((await family.deleteDeferred(dueAt)).transactions, 1);
      assert.doesNotMatch(save('filter'), /svc-2 has no endpoints/);
      assert.equal(family.deferredDueAt, undefined);
    });

    test("upstream's chains are replaced; a chain that others use stays, empty", async () => {
      const upstream = [
        '*nat',
        ':KUBE-SERVICES - [0:0]',
        ':KUBE-NODEPORTS - [0:0]',
        ':KUBE-SVC-TVLPR6G6OUYAL4AB - [0:0]',
        ':KUBE-SEP-JB3XAQF5B4LJO7NH - [0:0]',
        ':KUBE-SVC-USEDBYOTHERS2222 - [0:0]',
        ':OTHER - [0:0]',
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A KUBE-SERVICES -d 10.177.0.50/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-TVLPR6G6OUYAL4AB',
        '-A KUBE-SVC-TVLPR6G6OUYAL4AB -j KUBE-SEP-JB3XAQF5B4LJO7NH',
        '-A KUBE-SEP-JB3XAQF5B4LJO7NH -p tcp -m tcp -j DNAT --to-destination 10.61.1.31:9000',
        '-A KUBE-SVC-USEDBYOTHERS2222 -p tcp -j DNAT --to-destination 10.61.1.31:9000',
        '-A OTHER -j KUBE-SVC-USEDBYOTHERS2222',
        'COMMIT',
        '',
      ].join('\n');
      writeFileSync(path.join(folder.path, 'upstream'), upstream);
      tool('iptables-restore', '--noflush', path.join(folder.path, 'upstream'));
      const warnings: string[] = [];
      const log: Logger = { ...silentLogger, warn: (message) => warnings.push(message) };
      const family = make({ log });
      const report = await family.resync([servicePort(1, three)]);
      assert.deepEqual(report.failures, []);
      const nat = save('nat');
      assert.equal(nat.match(/-A PREROUTING .*KUBE-SERVICES/g)?.length, 1);
      assert.match(nat, /svc-1 cluster IP/);
      assert.match(nat, /-A OTHER -j KUBE-SVC-USEDBYOTHERS2222/);
      assert.doesNotMatch(nat, /-d 10\.177\.0\.50/);
      assert.equal(warnings.length, 1);
      // Once nobody uses it, it goes, and with it the others.
      tool('iptables', '-t', 'nat', '-F', 'OTHER');
      await family.resync([servicePort(1, three)]);
      assert.doesNotMatch(save('nat'), /KUBE-SEP-JB3|TVLPR6G6|USEDBYOTHERS/);
    });

    test('the legacy kind leaves the tables to others for three times as long as a write took', async () => {
      const family = make();
      await family.resync([servicePort(1, three), servicePort(2, [])]);
      const begin = performance.now();
      const change = { family: 'IPv4', upserted: [servicePort(2, three)], removed: [] } as const;
      const { restMs = 0, kernelMs } = await family.apply(change);
      const end = performance.now();
      const wait = (family.deferredDueAt ?? 0) - end;
      if (kind === 'nf_tables') {
        assert.equal(restMs, 0);
      } else {
        assert.ok(Math.abs(restMs - Math.min(3 * kernelMs, 1000)) < 1, `${restMs} after ${kernelMs} ms`);
        assert.ok(restMs > 0 && kernelMs <= end - begin);
        assert.ok(wait >= Math.min(restMs, 100) - 20, `${wait} ms until the deferred deletion`);
      }
      // What is only looked at asks for none.
      assert.equal((await family.resync([servicePort(1, three), servicePort(2, three)])).transactions, 0);
      await sleep(150);
      // The next change takes along what has waited for long enough.
      await family.apply({ family: 'IPv4', upserted: [servicePort(3, three)], removed: [] });
      assert.doesNotMatch(save('filter'), /svc-2 has no endpoints/);
      assert.equal(family.deferredDueAt, undefined);
    });

    test('settings are written by themselves', async () => {
      const family = make({ nodePortAddresses: ['100.64.10.11'] });
      const port = servicePort(1, three);
      const nodePort = {
        ...port.addresses[0]!,
        kind: 'NodePort',
        ip: '',
        port: 31_001,
        scope: 'external',
      } as const;
      await family.resync([{ ...port, addresses: [...port.addresses, nodePort] }]);
      assert.match(
        save('nat'),
        /-A KUBE-SERVICES -d 100\.64\.10\.11\/32 -p tcp .*--dport 31001 -j KUBE-NODEPORTS/,
      );
      family.setNodePortAddresses(['100.64.77.11']);
      family.setHealthCheckPort('ns/svc-1', 32_190);
      await eventually(() => {
        assert.match(
          save('nat'),
          /-A KUBE-SERVICES -d 100\.64\.77\.11\/32 -p tcp .*--dport 31001 -j KUBE-NODEPORTS/,
        );
        assert.doesNotMatch(save('nat'), /100\.64\.10\.11/);
        assert.match(save('filter'), /-A KUBE-NODEPORTS -p tcp .*--dport 32190 -j ACCEPT/);
      });
      family.setHealthCheckPort('ns/svc-1', undefined);
      await eventually(() => {
        assert.doesNotMatch(save('filter'), /32190/);
      });
    });

    test('counters of the kernel', async () => {
      const family = make({
        ensureCounters,
        localhostNodePorts: { ranges: [{ ip: '127.0.0.0', prefixLength: 8 }] },
      });
      await family.resync([servicePort(1, three)]);
      assert.match(
        save('filter'),
        /--ctstate INVALID -m nfacct --nfacct-name +ct_state_invalid_dropped_pkts -j DROP/,
      );
      assert.match(
        save('nat'),
        /--ctorigdst 127\.0\.0\.0\/8 -m nfacct --nfacct-name +localhost_nps_accepted_pkts/,
      );
      assert.equal(readCounter('ct_state_invalid_dropped_pkts'), 0);
      assert.equal(readCounter('nothing'), undefined);
      const again = await make({
        ensureCounters,
        localhostNodePorts: { ranges: [{ ip: '127.0.0.0', prefixLength: 8 }] },
      }).resync([servicePort(1, three)]);
      assert.equal(again.transactions, 0);
    });

    test('the program is missing: an error that says so, and another try when it is there', async () => {
      const empty = toolFolder(kind);
      unlinkSync(path.join(empty.path, 'iptables-restore'));
      try {
        const family = make({ tool: { path: empty.path } });
        await assert.rejects(family.resync([]), (error) => {
          assert.ok(hasCode('IPTABLES_MISSING')(error));
          assert.match(String(error), /iptables-restore is not in PATH: install the package iptables/);
          return true;
        });
        const { path: complete } = folder;
        const source = path.join(complete, 'iptables-restore');
        writeFileSync(path.join(empty.path, 'iptables-restore'), `#!/bin/sh\nexec ${source} "$@"\n`, {
          mode: 0o755,
        });
        assert.deepEqual((await family.resync([servicePort(1, three)])).failures, []);
      } finally {
        empty.remove();
      }
    });

    test('rules that are refused: their service port is named, the others go in', async () => {
      const family = make();
      const ports = Array.from({ length: 40 }, (_, i) => servicePort(i, three));
      await family.resync(ports);
      const broken = [{ ...endpoint(9), ip: '10.61.0.999' }];
      const bad = servicePort(7, [...three, ...broken]);
      const upserted = ports.map((_, i) => (i === 7 ? bad : servicePort(i, [...three, endpoint(20 + i)])));
      const report = await family.apply({ family: 'IPv4', upserted, removed: [] });
      assert.deepEqual(
        report.failures.map(({ servicePort: name }) => name),
        ['ns/svc-7'],
      );
      assert.match(report.failures[0]?.error.message ?? '', /10\.61\.0\.999/);
      const nat = save('nat');
      assert.match(nat, /10\.61\.0\.26:9000/);
      // What it had before still serves it.
      assert.match(nat, /svc-7 cluster IP/);
      assert.match(nat, /10\.61\.0\.28:9000/);

      const started = make();
      const start = await started.resync(upserted);
      assert.deepEqual(
        start.failures.map(({ servicePort: name }) => name),
        ['ns/svc-7'],
      );
      assert.match(save('nat'), /svc-8 cluster IP/);
      assert.doesNotMatch(save('nat'), /svc-7 cluster IP/);
    });

    test('a match is missing: who needs it is named, the others are served', async () => {
      refuse('-m recent');
      const family = make();
      const sticky = servicePort(1, three, { affinitySeconds: 600 });
      const report = await family.resync([sticky, servicePort(2, three)]);
      assert.deepEqual(
        report.failures.map(({ servicePort: name }) => name),
        ['ns/svc-1'],
      );
      assert.match(report.failures[0]?.error.message ?? '', /xt_recent/);
      assert.match(save('nat'), /svc-2 cluster IP/);
    });

    test('without match bpf pods that meet themselves take a rule each', async () => {
      refuse('-m bpf');
      const family = make();
      const own = { ...endpoint(5), local: true };
      assert.deepEqual((await family.resync([servicePort(1, [own, endpoint(6)])])).failures, []);
      assert.match(
        save('nat'),
        /-A KUBE-POSTROUTING -s 10\.61\.0\.5\/32 -d 10\.61\.0\.5\/32 -m conntrack --ctstate DNAT -j KUBE-MARK-MASQ/,
      );
      assert.doesNotMatch(save('nat'), /-s 10\.61\.0\.6/);
      await family.apply({ family: 'IPv4', upserted: [servicePort(1, [endpoint(6)])], removed: [] });
      assert.doesNotMatch(save('nat'), /-s 10\.61\.0\.5/);
    });

    test('all rules are refused: an error, and the rules in force stay', async () => {
      const family = make();
      await family.resync([servicePort(1, three)]);
      const nat = save('nat');
      refuse(':KUBE-');
      await assert.rejects(
        family.apply({ family: 'IPv4', upserted: [servicePort(2, three)], removed: [] }),
        (error) => error instanceof TableDamagedError || error instanceof IptablesError,
      );
      assert.equal(withoutDates(save('nat')), withoutDates(nat));
      // Until everything has been compared nothing is taken for granted.
      await assert.rejects(family.apply({ family: 'IPv4', upserted: [], removed: [] }), TableDamagedError);
    });

    /** What the watches of this kind are given to notice a change, where they do not notice it themselves. */
    const checkNow = async (family: IptablesFamily): Promise<void> => {
      if (kind === 'legacy') await family.checkTables();
      else family.checkJumps('nobody');
      await sleep(100);
    };

    test('somebody flushed the tables', async () => {
      const damages: string[] = [];
      const family = make({ onDamage: (by) => damages.push(by) });
      await family.resync([servicePort(1, three)]);
      await checkNow(family);
      family.maintain();
      await sleep(100);
      assert.equal(damages.length, 0);
      for (const table of ['nat', 'filter', 'mangle']) {
        tool('iptables', '-t', table, '-F');
        tool('iptables', '-t', table, '-X');
      }
      await checkNow(family);
      assert.equal(damages.length, 1);
      await family.resync([servicePort(1, three)]);
      assert.match(save('nat'), /svc-1 cluster IP/);
      await checkNow(family);
      assert.equal(damages.length, 1);
    });

    test('what others do beside ours is no damage; a jump that goes, and a chain that is emptied, are', async () => {
      const damages: string[] = [];
      const family = make({ onDamage: (by) => damages.push(by) });
      const ports = [servicePort(1, three), servicePort(2, [])];
      await family.resync(ports);
      tool('iptables', '-t', 'nat', '-N', 'OTHER');
      tool('iptables', '-t', 'nat', '-I', 'PREROUTING', '-i', 'cni0', '-j', 'OTHER');
      tool('iptables', '-I', 'FORWARD', '-i', 'cni0', '-j', 'ACCEPT');
      await family.apply({ family: 'IPv4', upserted: [servicePort(3, three)], removed: [] });
      await checkNow(family);
      assert.equal(damages.length, 0);
      tool('iptables', '-t', 'nat', '-D', 'PREROUTING', '2');
      await checkNow(family);
      assert.equal(damages.length, 1);
      await family.resync([...ports, servicePort(3, three)]);
      if (kind === 'nf_tables') return;
      assert.match(damages.at(-1) ?? '', /-A PREROUTING .*-j KUBE-SERVICES/);
      tool('iptables', '-F', 'KUBE-SERVICES');
      await checkNow(family);
      assert.match(damages.at(-1) ?? '', /table filter: rules of chain KUBE-SERVICES, 0 in place of 1/);
    });

    test('jumps of ours that are there more than once are taken out but for one', async () => {
      await make().resync([servicePort(1, three)]);
      const jumps = (): string[] =>
        ['nat', 'filter'].flatMap((table) =>
          save(table)
            .split('\n')
            .filter((line) => /^-A [A-Z]+ .*-j KUBE-/.test(line)),
        );
      const once = jumps();
      for (const line of once) {
        const table = /POSTROUTING|PREROUTING|OUTPUT .*service portals/.test(line) ? 'nat' : 'filter';
        if (!save(table).includes(line)) continue;
        for (let i = 0; i < 3; i++) {
          writeFileSync(path.join(folder.path, 'more'), `*${table}\n${line}\nCOMMIT\n`);
          tool('iptables-restore', '--noflush', path.join(folder.path, 'more'));
        }
      }
      assert.ok(jumps().length > once.length + 20);
      await make().resync([servicePort(1, three)]);
      assert.deepEqual(jumps().sort(), once.sort());
      assert.equal((await make().resync([servicePort(1, three)])).transactions, 0);
    });

    if (kind === 'legacy') {
      test('somebody holds the lock: an error that says so, and the rules in force stay', async () => {
        const family = make({ tool: { path: folder.path, lockSeconds: 1 } });
        await family.resync([servicePort(1, three)]);
        const holder = spawn('flock', [folder.lock, 'sleep', '60'], { stdio: 'ignore', detached: true });
        try {
          await eventually(() => {
            assert.throws(() => run('flock', '--nonblock', folder.lock, 'true'));
          });
          const change = { family: 'IPv4', upserted: [servicePort(2, three)], removed: [] } as const;
          await assert.rejects(family.apply(change), hasCode('IPTABLES_LOCKED'));
        } finally {
          process.kill(-(holder.pid ?? 0));
          await once(holder, 'exit');
        }
        assert.match(save('nat'), /svc-1 cluster IP/);
        assert.doesNotMatch(save('nat'), /svc-2 cluster IP/);
        await family.resync([servicePort(1, three), servicePort(2, three)]);
        assert.match(save('nat'), /svc-2 cluster IP/);
      });
      return;
    }

    test('very many chains go in by parts', async () => {
      const family = make();
      const ports = Array.from({ length: 1500 }, (_, i) => servicePort(i, three));
      assert.deepEqual((await family.resync(ports)).failures, []);
      assert.equal((await make().resync(ports)).transactions, 0);
      const empty = await family.resync([]);
      assert.deepEqual(empty.failures, []);
      assert.doesNotMatch(save('nat'), /KUBE-SVC-/);
    });

    test('the kernel tells what others change, and not what we do', async () => {
      const reported: IPFamily[] = [];
      const by: string[] = [];
      const foreign = new ForeignChanges({
        onForeignChange: (which) => reported.push(which),
        onBackoff: (program) => by.push(program),
        log: silentLogger,
      });
      const family = make({
        onDamage: (program) => {
          foreign.noticed(['IPv4'], program);
        },
      });
      const watch = RuleWatch.open({
        families: [family],
        foreign,
        onMissed: () => undefined,
        log: silentLogger,
      });
      assert.ok(watch !== undefined);
      try {
        await family.resync([servicePort(1, three)]);
        await family.apply({ family: 'IPv4', upserted: [servicePort(2, three)], removed: [] });
        tool('iptables', '-A', 'FORWARD', '-i', 'cni0', '-j', 'ACCEPT');
        tool('iptables', '-D', 'FORWARD', '-i', 'cni0', '-j', 'ACCEPT');
        await sleep(1800);
        assert.deepEqual(reported, []);
        tool('iptables', '-t', 'nat', '-F', 'KUBE-SERVICES');
        await eventually(() => {
          assert.deepEqual(reported, ['IPv4']);
        });
        assert.match(by[0] ?? '', /^(ip|x)tables\S* \(pid \d+[,)]/);
      } finally {
        foreign.close();
        await watch.close();
      }
    });

    test('lost notifications are no damage: everything is compared, and nobody is accused', async () => {
      const [reported, missed]: [string[], IPFamily[]] = [[], []];
      const foreign = new ForeignChanges({
        onForeignChange: () => undefined,
        onBackoff: (program) => reported.push(program),
        log: silentLogger,
      });
      const family = make({ onDamage: (by) => reported.push(by) });
      const watch = RuleWatch.open({
        families: [family],
        foreign,
        onMissed: (which) => missed.push(which),
        log: silentLogger,
      });
      assert.ok(watch !== undefined);
      const other = NftablesConnection.open();
      const change = (fill: (batch: Batch) => void): void => {
        const batch = new Batch('ip', 'theirs');
        fill(batch);
        other.commit(batch);
      };
      try {
        await family.resync([servicePort(1, three)]);
        change((batch) => {
          batch.addTable();
          batch.addSet({ name: 'many', key: [types.ipv4Addr] });
          for (let i = 0; i < 100_000; i++) {
            const key = Buffer.alloc(4);
            key.writeUInt32BE(i);
            batch.addElement('many', key);
          }
        });
        await eventually(() => {
          assert.deepEqual(missed, ['IPv4']);
        });
        await sleep(500);
        assert.deepEqual(reported, []);
      } finally {
        change((batch) => {
          batch.deleteTable();
        });
        other.close();
        foreign.close();
        await watch.close();
      }
    });

    test('the rule that leads to ours is missed at once when it is gone, and who took it out', async () => {
      const damages: string[] = [];
      const family = make({ onDamage: (by) => damages.push(by) });
      await family.resync([servicePort(1, three)]);
      const foreign = new ForeignChanges({ onForeignChange: () => undefined, log: silentLogger });
      const watch = RuleWatch.open({
        families: [family],
        foreign,
        onMissed: () => undefined,
        log: silentLogger,
      });
      try {
        const start = performance.now();
        tool('iptables', '-t', 'nat', '-D', 'PREROUTING', '1');
        while (damages.length === 0 && performance.now() - start < patienceMs) await sleep(5);
        const took = performance.now() - start;
        assert.ok(took < 500, `${took} ms`);
        assert.match(damages[0] ?? '', /^(ip|x)tables\S* \(pid \d+[,)]/);
        await family.resync([servicePort(1, three)]);
        assert.match(save('nat'), /-A PREROUTING .*-j KUBE-SERVICES/);
      } finally {
        foreign.close();
        await watch?.close();
      }
    });

    test('a rule that iptables cannot read: what is there is left, what is not is written, and it is named', async () => {
      const warnings: Record<string, unknown>[] = [];
      const log: Logger = { ...silentLogger, warn: (_message, fields) => warnings.push({ ...fields }) };
      const ports = Array.from({ length: 900 }, (_, i) => servicePort(i, three));
      await make({ guardLoopback: true }).resync(ports);
      const before = withoutDates(save('nat'));
      run('nft', 'add', 'rule', 'ip', 'nat', 'POSTROUTING', 'ct', 'state', 'established', 'accept');
      run('nft', 'add', 'rule', 'ip', 'filter', 'FORWARD', 'meta', 'skuid', '1000', 'accept');
      const family = make({ log, guardLoopback: true });
      const report = await family.resync(ports);
      assert.deepEqual([report.transactions, report.elementsAdded, report.failures], [0, 0, []]);
      assert.deepEqual(
        warnings.map(({ table, chain }) => [table, chain]),
        [
          ['ip filter', 'FORWARD'],
          ['ip nat', 'POSTROUTING'],
        ],
      );
      assert.match(String(warnings[1]?.['rule']), /^ct state accept handle \d+$/);
      // One of ours, and of the kubelet's, with such a rule in it.
      const [own] = /KUBE-SVC-[A-Z0-9]{16}/.exec(before) ?? [''];
      run('nft', 'add', 'rule', 'ip', 'nat', own, 'ct', 'state', 'new', 'accept');
      run('nft', 'add', 'rule', 'ip', 'filter', 'KUBE-FIREWALL', 'ct', 'state', 'new', 'accept');
      const again = await family.resync([...ports, servicePort(1000, three)]);
      assert.deepEqual(again.failures, []);
      assert.equal(warnings.length, 2);
      for (const command of ['POSTROUTING', 'FORWARD'])
        run('nft', 'flush', 'chain', 'ip', command === 'FORWARD' ? 'filter' : 'nat', command);
      assert.match(run('nft', 'list', 'chain', 'ip', 'filter', 'KUBE-FIREWALL'), /ct state new accept/);
      run('nft', 'flush', 'chain', 'ip', 'filter', 'KUBE-FIREWALL');
      await family.resync(ports);
      assert.equal(withoutDates(save('nat')), before);
    });
  });
}

async function eventually(check: () => void): Promise<void> {
  const end = Date.now() + patienceMs;
  for (;;) {
    try {
      check();
      return;
    } catch (error) {
      if (Date.now() > end) throw error;
    }
    await sleep(50);
  }
}

function withoutDates(saved: string): string {
  return saved.replace(/^#.*$/gm, '');
}
