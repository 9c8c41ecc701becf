/** The kubelet's chains decide which kind of iptables is used; each case in a network namespace of its own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { afterEach, test } from 'node:test';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import type { ToolKind } from './kind.js';
import { kinds, missingTool, toolFolder, type ToolFolder } from '../testing/tools.js';
import { IptablesTool } from './tool.js';

const noNamespace = enterNetworkNamespace();
const skip = noNamespace !== false ? noNamespace : kinds.map(missingTool).find((why) => why !== false);
const hint = 'KUBE-IPTABLES-HINT';
const canary = 'KUBE-KUBELET-CANARY';
const otherOf = (kind: ToolKind): ToolKind => (kind === 'legacy' ? 'nf_tables' : 'legacy');
const folders: ToolFolder[] = [];

function folderOf(kind: ToolKind, beside: readonly ToolKind[] = []): ToolFolder {
  const folder = toolFolder(kind, beside);
  folders.push(folder);
  return folder;
}

/** Makes or deletes a chain of table mangle. */
function chain(kind: ToolKind, verb: '-N' | '-X', name: string, command = 'iptables'): void {
  const folder = folderOf(kind);
  const { status, stderr } = spawnSync(`${folder.path}/${command}`, ['-t', 'mangle', verb, name], {
    encoding: 'utf8',
    env: { XTABLES_LOCKFILE: folder.lock },
  });
  assert.equal(status, 0, stderr);
}

async function opened(folder: ToolFolder, family: 'IPv4' | 'IPv6' = 'IPv4'): Promise<string> {
  const { description, differsFrom } = await IptablesTool.open({ family, path: folder.path });
  return `${description.replace(/ [\d.]+ /, ' ')}${differsFrom === undefined ? '' : `, not ${differsFrom}`}`;
}

afterEach(() => {
  for (const folder of folders.splice(0)) folder.remove();
});

for (const kind of kinds) {
  const other = otherOf(kind);
  const full = `iptables-${kind === 'legacy' ? 'legacy' : 'nft'}`;
  for (const name of [hint, canary]) {
    test(`a ${name} of kind ${kind}: that kind is used, by whatever name`, { skip }, async () => {
      chain(kind, '-N', name);
      try {
        assert.equal(await opened(folderOf(kind, kinds)), `iptables-restore (${kind})`);
        assert.equal(await opened(folderOf(other, kinds)), `${full}-restore (${kind})`);
      } finally {
        chain(kind, '-X', name);
      }
    });
  }

  test(`without a hint, plain iptables of kind ${kind} is used`, { skip }, async () => {
    assert.equal(await opened(folderOf(kind, kinds)), `iptables-restore (${kind})`);
  });
}

test('a hint among the IPv6 rules counts for both families', { skip }, async () => {
  chain('legacy', '-N', hint, 'ip6tables');
  try {
    const folder = folderOf('nf_tables', kinds);
    assert.equal(await opened(folder), 'iptables-legacy-restore (legacy)');
    assert.equal(await opened(folder, 'IPv6'), 'ip6tables-legacy-restore (legacy)');
  } finally {
    chain('legacy', '-X', hint, 'ip6tables');
  }
});

test('the kind of the kubelet is not installed: the other is used, and tells', { skip }, async () => {
  chain('nf_tables', '-N', hint);
  try {
    assert.equal(await opened(folderOf('legacy')), 'iptables-restore (legacy), not nf_tables');
  } finally {
    chain('nf_tables', '-X', hint);
  }
});

test(
  'both kinds have the chain: the newer one counts, as for the wrapper in upstream',
  { skip },
  async () => {
    for (const kind of kinds) chain(kind, '-N', hint);
    try {
      assert.equal(await opened(folderOf('legacy', kinds)), 'iptables-nft-restore (nf_tables)');
    } finally {
      for (const kind of kinds) chain(kind, '-X', hint);
    }
  },
);
