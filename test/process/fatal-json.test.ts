/** With JSON logs the last words are JSON, too: what collects them reads no other lines. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { program } from './node.js';

const skip = enterNetworkNamespace();

const mistakes: readonly (readonly [args: readonly string[], says: RegExp])[] = [
  [['--logging-format=json', '--proxy-mode=magic'], /"magic": must be nftables/],
  [['--logging-format=json', '--manifests=/nope'], /\/nope/],
];

for (const [args, says] of mistakes) {
  test(`every line of ${args.join(' ')} is an object with a time`, { skip }, () => {
    const { stderr } = spawnSync(program, [...args], { encoding: 'utf8' });
    const lines = stderr.trimEnd().split('\n');
    const last = lines
      .map((line) => JSON.parse(line) as { ts: unknown; msg: string; severity?: string })
      .at(-1);
    assert.equal(typeof last?.ts, 'number');
    assert.equal(last?.severity, 'error');
    assert.match(last.msg, says);
  });
}
