/** Which of many service ports have rules that are rejected: exactly these are left out, with a tool that names lines or not. */
import assert from 'node:assert/strict';
import { unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import type { Endpoint, ServicePort } from '../../model/types.js';
import { silentLogger } from '../../log/logger.js';
import { IptablesFamily } from './family.js';
import { notTried, OffendingServices } from './offending-services.js';
import { kinds, missingTool, toolFolder, type ToolFolder } from './testing/tools.js';
import { IptablesTool } from './tool/tool.js';

const noNamespace = enterNetworkNamespace();
const context = { family: 'IPv4', masqueradeAll: false, detector: undefined } as const;

const pod = (ip: string): Endpoint => ({ ip, port: 9000, local: false, nodeUnknown: false });

/** @param ip of its endpoint: one that is none has rules that no tool takes */
function servicePort(number: number, ip: string | undefined): ServicePort {
  const clusterIP = `10.177.${String(number >> 8)}.${String(number & 255)}`;
  const endpoints = ip === undefined ? [] : [pod(ip)];
  return {
    key: `ns/svc-${String(number)}/TCP`,
    name: `ns/svc-${String(number)}`,
    namespace: 'ns',
    serviceName: `svc-${String(number)}`,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP,
    port: 80,
    addresses: [
      {
        kind: 'ClusterIP',
        ip: clusterIP,
        port: 80,
        scope: 'internal',
        policy: 'Cluster',
        fallback: ip === undefined ? 'reject' : 'serve',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints: endpoints,
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
  };
}

/** 600 service ports, of which every fifteenth is bad. */
const bad = (number: number): boolean => number % 15 === 7;
const ports = Array.from({ length: 600 }, (_, i) =>
  servicePort(i, bad(i) ? '10.61.0.999' : `10.61.${String(i >> 7)}.${String(i & 127)}`),
);
const badNames = ports.filter((_, i) => bad(i)).map(({ name }) => name);

for (const kind of kinds) {
  describe(
    `rejected rules (${kind})`,
    { skip: noNamespace !== false ? noNamespace : missingTool(kind) },
    () => {
      let folder: ToolFolder;
      before(() => {
        folder = toolFolder(kind);
        process.env['XTABLES_LOCKFILE'] = folder.lock;
      });
      after(() => {
        folder.remove();
      });

      const make = (): IptablesFamily =>
        new IptablesFamily({
          ...context,
          masqueradeMark: 0x4000,
          nodePortAddresses: 'all',
          dropInvalid: true,
          log: silentLogger,
          tool: { path: folder.path },
          onDamage: () => undefined,
        });

      /** A tool that rejects input with the words, and says no more than `says`. */
      const reject = (words: string, says: string): void => {
        const program = path.join(folder.path, 'iptables-restore');
        unlinkSync(program);
        const real = `/usr/sbin/xtables-${kind === 'legacy' ? 'legacy' : 'nft'}-multi`;
        writeFileSync(
          program,
          [
            '#!/bin/bash',
            'input=$(/bin/cat)',
            `case "$input" in *'${words}'*) echo "iptables-restore: ${says}" >&2; exit 1;; esac`,
            `printf '%s\\n' "$input" | exec -a iptables-restore ${real} "$@"`,
            '',
          ].join('\n'),
          { mode: 0o755 },
        );
      };

      test('40 of 600: exactly these are left out', async () => {
        const family = make();
        try {
          const { failures } = await family.resync(ports);
          assert.deepEqual(failures.map(({ servicePort: name }) => name).sort(), [...badNames].sort());
          for (const { error } of failures) assert.match(error.message, /10\.61\.0\.999/);
          const nat = run(path.join(folder.path, 'iptables-save'), '-t', 'nat');
          const served = ports.filter(({ name }) => nat.includes(`"${name} cluster IP"`)).length;
          assert.equal(served, 560);
          assert.doesNotMatch(nat, /KUBE-PROXY-PROBE/);
        } finally {
          family.close();
        }
      });

      test('the next attempt does not try again what was rejected a moment ago', async () => {
        const tool = await IptablesTool.open({ family: 'IPv4', path: folder.path });
        let runs = 0;
        const restore = tool.restore.bind(tool);
        tool.restore = (input) => {
          runs++;
          return restore(input);
        };
        const offending = new OffendingServices();
        const first = await offending.find(tool, ports.slice(0, 60), context);
        assert.equal(first.offending.length, 4);
        assert.ok(runs >= 10, `${String(runs)} runs`);
        runs = 0;
        const second = await offending.find(tool, ports.slice(0, 60), context);
        assert.equal(second.offending.length, 4);
        assert.ok(runs <= 3, `${String(runs)} runs`);
        const mended = ports.slice(0, 60).map((_, i) => servicePort(i, '10.61.0.1'));
        assert.deepEqual((await offending.find(tool, mended, context)).offending, []);
      });

      test('without time for all: nobody is called offending who was not tried alone', async () => {
        const tool = await IptablesTool.open({ family: 'IPv4', path: folder.path });
        const { offending, untried } = await new OffendingServices({ searchMs: 0 }).find(
          tool,
          ports,
          context,
        );
        assert.deepEqual(offending, []);
        assert.equal(untried.length, 600);
        assert.match(notTried().message, /no time to try them one by one/);
      });

      test('a tool that names no line: the same service ports, by halving', async () => {
        reject('10.61.0.999', 'failed');
        const tool = await IptablesTool.open({ family: 'IPv4', path: folder.path });
        const found = await new OffendingServices().find(tool, ports.slice(0, 100), context);
        assert.deepEqual(
          found.offending.map(({ port }) => port.name).sort(),
          ports
            .slice(0, 100)
            .filter((_, i) => bad(i))
            .map(({ name }) => name)
            .sort(),
        );
        assert.deepEqual(found.untried, []);
      });

      test('no target REJECT: what nobody serves is dropped, all others are served', async () => {
        reject('-j REJECT', 'line 3 failed');
        const family = make();
        try {
          const report = await family.resync([servicePort(1, undefined), servicePort(2, '10.61.0.2')]);
          assert.deepEqual(report.failures, []);
          const filter = run(path.join(folder.path, 'iptables-save'), '-t', 'filter');
          assert.match(filter, /svc-1 has no endpoints".* -j DROP/);
          assert.doesNotMatch(filter, /REJECT/);
        } finally {
          family.close();
        }
      });
    },
  );
}
