/** From upstream's modes to ours, with traffic all the while: nobody may notice. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { useOwnXtablesLock } from '../../src/leftovers/testing/own-lock.js';
import { chainPerService } from '../../bench/ruleset-text.js';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import {
  type Child,
  manifest,
  nodeIP,
  podIP,
  program,
  proxyArguments,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { bothCompared } from '../both-families.js';

useOwnXtablesLock();
const skip = enterNetworkNamespace() || missingNft();

/** What upstream's mode iptables has for the Service of `manifest` (dataplane-iptables.md), and a rule of somebody else. */
const upstreamRules = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-PEARPEARPEARPEAR - [0:0]
:KUBE-EXT-PEARPEARPEARPEAR - [0:0]
:KUBE-SEP-PEARPEARPEARPEAR - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 192.0.2.0/24 -o nowhere -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d ${serviceIP}/32 -p tcp -m comment --comment "orchard/pear:web cluster IP" -m tcp --dport 80 -j KUBE-SVC-PEARPEARPEARPEAR
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "orchard/pear:web" -m tcp --dport 31050 -j KUBE-EXT-PEARPEARPEARPEAR
-A KUBE-EXT-PEARPEARPEARPEAR -m comment --comment "masquerade traffic for orchard/pear:web external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-PEARPEARPEARPEAR -j KUBE-SVC-PEARPEARPEARPEAR
-A KUBE-SVC-PEARPEARPEARPEAR ! -s 10.61.0.0/16 -d ${serviceIP}/32 -p tcp -m comment --comment "orchard/pear:web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-PEARPEARPEARPEAR -m comment --comment "orchard/pear:web -> ${podIP}:9000" -j KUBE-SEP-PEARPEARPEARPEAR
-A KUBE-SEP-PEARPEARPEARPEAR -s ${podIP}/32 -m comment --comment "orchard/pear:web" -j KUBE-MARK-MASQ
-A KUBE-SEP-PEARPEARPEARPEAR -p tcp -m comment --comment "orchard/pear:web" -m tcp -j DNAT --to-destination ${podIP}:9000
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A INPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`;

function missingIptables(): string | false {
  return spawnSync('iptables-nft', ['--version']).status === 0 ? false : 'needs the package iptables';
}

describe('a node changes hands', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-migration-'));
  before(async () => {
    await node.open();
    writeFileSync(join(folder, 'pear.yaml'), manifest);
  });
  after(async () => {
    await node.close();
    rmSync(folder, { recursive: true });
  });

  describe('from mode iptables of upstream', { skip: missingIptables() }, () => {
    const rules = (kind: string): string => run(`iptables-${kind}-save`);

    for (const kind of ['nft', 'legacy'] as const) {
      test(`iptables-${kind}: established and new connections go on, its rules go, others' stay`, async (t) => {
        const loaded = spawnSync(`iptables-${kind}-restore`, ['--noflush'], { input: upstreamRules });
        assert.equal(loaded.status, 0, loaded.stderr.toString());
        const traffic = [await node.traffic(serviceIP, 80), await node.traffic(nodeIP, 31050)];
        const proxy = start(program, `--manifests=${folder}`, ...proxyArguments);
        t.after(() => {
          proxy.kill('SIGKILL');
        });
        await proxy.waitFor('Removed leftovers of another mode');
        await new Promise((resolve) => setTimeout(resolve, 300));
        for (const child of traffic) await assertUnhurt(child);
        const left = rules(kind);
        assert.doesNotMatch(left, /KUBE-(SERVICES|NODEPORTS|SVC|SEP|EXT|POSTROUTING|MARK-MASQ|FORWARD)/);
        assert.match(left, /-A POSTROUTING -s 192\.0\.2\.0\/24 -o nowhere -j MASQUERADE/);
        assert.match(left, /-A INPUT -j KUBE-FIREWALL/, 'belongs to the kubelet');
        proxy.kill('SIGTERM');
        assert.equal(await proxy.end(), 0);
        const cleanup = start(program, '--cleanup');
        assert.equal(await cleanup.end(), 0, cleanup.output);
      });
    }

    test('between our own modes, by a changed configuration file: back and forth without a lost packet', async () => {
      const file = join(folder, 'config.conf');
      const configure = (mode: string): void => {
        const settings = { mode, clusterCIDR: '10.61.0.0/16', bindAddress: nodeIP };
        writeFileSync(
          file,
          JSON.stringify({
            apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
            kind: 'KubeProxyConfiguration',
            ...settings,
            // The folder is watched for manifests, too.
            nodePortAddresses: [`${nodeIP}/32`],
          }),
        );
      };
      configure('nftables');
      const proxy = start(
        program,
        `--manifests=${join(folder, 'pear.yaml')}`,
        `--config=${file}`,
        '--hostname-override=alder',
        '--v=2',
      );
      try {
        await proxy.waitFor(bothCompared);
        const traffic = [await node.traffic(serviceIP, 80), await node.traffic(nodeIP, 31050)];
        for (const mode of ['iptables', 'nftables', 'iptables', 'nftables']) {
          const seen = proxy.output.length;
          configure(mode);
          await proxy.waitFor(new RegExp(`^[^]{${String(seen)},}Removed leftovers of another mode`), 20_000);
          await new Promise((resolve) => setTimeout(resolve, 200));
          const hasTable = run('nft', 'list', 'tables').includes('table ip kube-proxy');
          assert.equal(hasTable, mode === 'nftables', mode);
          assert.equal(/KUBE-SERVICES/.test(run('iptables-save')), mode === 'iptables', mode);
        }
        for (const child of traffic) await assertUnhurt(child);
      } finally {
        proxy.kill('SIGTERM');
        assert.equal(await proxy.end(), 0);
      }
    });
  });

  describe('from mode nftables of upstream, a table of the same name', () => {
    for (const [size, services] of [
      ['small, in one transaction', 10],
      ['large, in pieces, with a table that stands in', 2000],
    ] as const) {
      test(`${size}: established and new connections go on`, async (t) => {
        const rules = chainPerService(
          'kube-proxy',
          { services, endpoints: 5 },
          {
            clusterIP: serviceIP,
            loadBalancerIP: '203.0.113.9',
            port: 80,
            nodePort: 31050,
            nodeIP,
            server: { ip: podIP, port: 9000 },
            podCIDR: { ip: '10.61.0.0', prefixLength: 16 },
          },
        );
        // Rules of an earlier test stay.
        assert.equal(await start(program, '--cleanup').end(), 0);
        const loaded = spawnSync('nft', ['-f', '-'], { input: rules });
        assert.equal(loaded.status, 0, loaded.stderr.toString().slice(0, 500));
        const traffic = [await node.traffic(serviceIP, 80), await node.traffic(nodeIP, 31050)];
        const proxy = start(program, `--manifests=${folder}`, ...proxyArguments);
        t.after(() => {
          proxy.kill('SIGKILL');
        });
        await proxy.waitFor(bothCompared, 20_000);
        await new Promise((resolve) => setTimeout(resolve, 300));
        for (const child of traffic) await assertUnhurt(child);
        assert.deepEqual(run('nft', 'list', 'tables', 'ip').match(/kube-proxy.*/g), ['kube-proxy']);
        assert.doesNotMatch(run('nft', 'list', 'chains', 'ip'), /chain service-([A-Z2-7]{8}|extra)/);
        assert.doesNotMatch(proxy.output, /another program/);
        proxy.kill('SIGTERM');
        assert.equal(await proxy.end(), 0);
        const cleanup = start(program, '--cleanup');
        assert.equal(await cleanup.end(), 0, cleanup.output);
      });
    }
  });
});

async function assertUnhurt(traffic: Child): Promise<void> {
  const { newConnections, lines, newFailed, linesLost, errors } = await trafficResult(traffic);
  assert.ok(newConnections > 10 && lines > 10, 'traffic flowed');
  assert.deepEqual({ newFailed, linesLost, errors }, { newFailed: 0, linesLost: 0, errors: [] });
}
