/**
 * Random changes on a real IPVS: what they add up to is what a start from nothing writes, in the words of ipvsadm, nft and
 * ip; the next process finds nothing to write. (The same with a stand-in for IPVS: src/backends/ipvs/family.kernel.test.ts.)
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { afterEach, describe, test } from 'node:test';
import { IpvsFamily } from '../../../src/backends/ipvs/family.js';
import { KernelServiceInterface } from '../../../src/backends/ipvs/service-interface.js';
import { World } from '../../../src/backends/testing/world.js';
import type { IPFamily } from '../../../src/model/types.js';
import { IpvsConnection } from '@kube-proxy-ts/netlink/ipvs';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { missingIpvs } from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs() || missingNft();

const nodeAddresses = { IPv4: ['100.64.10.11'], IPv6: ['2001:db8:a::11'] } as const;
const steps = 60;
const stepsBetweenLooks = 12;

function open(family: IPFamily): IpvsFamily {
  return new IpvsFamily(
    {
      nft: NftablesConnection.open(),
      ipvs: IpvsConnection.open(),
      observer: IpvsConnection.open(),
      addresses: new KernelServiceInterface(RouteConnection.open(), family === 'IPv4' ? 'ip' : 'ip6'),
    },
    {
      family,
      masqueradeMark: 0x4000,
      masqueradeAll: false,
      detector: { kind: 'interfacePrefix', prefix: 'veth' },
      nodePortAddresses: 'all',
    },
    { scheduler: 'rr', excludeCIDRs: [], localAddresses: nodeAddresses[family] },
  );
}

/** What the kernel holds, in an order of its own; marks as the first address that leads to them, since numbers say nothing. */
function kernel(): string {
  // Elements only: a set for a prefix length stays when the last range with that length goes.
  const elements = run('nft', '-s', 'list', 'ruleset')
    .split('\n')
    .flatMap((line) => line.split(/(?<=,) /))
    .map((line) =>
      line
        .replace(/,$/, '')
        .replace(/^\s*(elements = \{ )?/, '')
        .replace(/ \}$/, ''),
    )
    .filter((line) => /^[0-9a-f]+[.:]/.test(line))
    .sort();
  const names = new Map<string, string>();
  for (const line of elements) {
    const [, address = '', mark] = /^(\S+ \. \S+ \. \S+) .*: (0x6b7[0-9a-f]{5})$/.exec(line) ?? [];
    if (mark !== undefined && !names.has(mark)) names.set(mark, `mark of ${address}`);
  }
  const named = (line: string): string =>
    line.replaceAll(/0x6b7[0-9a-f]{5}/g, (mark) => names.get(mark) ?? mark);
  const servers = run('ipvsadm', '-Sn')
    .replaceAll(/(?<=-f )\d+/g, (mark) => `0x${Number(mark).toString(16)}`)
    .split('\n');
  const addresses = run('ip', '-br', 'address', 'show', 'kube-ipvs0').split(/\s+/).sort();
  return [...servers.map(named).sort(), ...addresses, ...elements.map(named).sort()].join('\n');
}

function clear(): void {
  for (const family of ['ip', 'ip6']) spawnSync('nft', ['delete', 'table', family, 'kube-proxy-ipvs']);
  spawnSync('ipvsadm', ['-C']);
  spawnSync('ip', ['link', 'del', 'kube-ipvs0']);
}

describe('random changes', { skip }, () => {
  afterEach(clear);
  for (const family of ['IPv4', 'IPv6'] as const satisfies readonly IPFamily[]) {
    for (const seed of [1, 2, 3, 4]) {
      test(`${family}, seed ${seed}`, async () => {
        const world = new World(new Random(seed), family);
        let dataplane = open(family);
        try {
          await dataplane.resync([]);
          for (let step = 1; step <= steps; step++) {
            const report = await dataplane.apply({ family, ...world.step() });
            assert.deepEqual(report.failures, []);
            if (step % stepsBetweenLooks !== 0) continue;
            await dataplane.check({ addresses: true });
            await dataplane.deleteDeferred(Infinity);
            const incremental = kernel();
            for (const kind of [/^-A /m, / \. tcp \. \d+ comment /, /^[0-9a-f.:]+\/(32|128)$/m])
              assert.match(incremental, kind);
            dataplane.close();
            dataplane = open(family);
            const again = await dataplane.resync(world.ports.values());
            assert.deepEqual([again.transactions, again.failures], [0, []], 'a restart writes nothing');
            assert.equal(kernel(), incremental);
            clear();
            dataplane.close();
            dataplane = open(family);
            assert.deepEqual((await dataplane.resync(world.ports.values())).failures, []);
            assert.equal(kernel(), incremental, 'as if built anew');
          }
        } finally {
          dataplane.close();
        }
      });
    }
  }
});
