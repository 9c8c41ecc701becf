/** Holds docs/nftables.md against the kernel: its blocks, put together, are what nft prints. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { bothCompared } from '../both-families.js';
import { program, start } from '../process/node.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const skip = enterNetworkNamespace() || missingNft();

/** White space does not count, and the elements of a hash set come in any order. */
function normalise(listing: string): string {
  return listing
    .replaceAll(/elements = \{([^}]*)\}/g, (_, elements: string) => {
      const sorted = elements.split(',').map((element) => element.trim());
      return `elements = { ${sorted.sort().join(', ')} }`;
    })
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join('\n');
}

async function programmed(manifests: string): Promise<string> {
  // Chains of classes that an earlier process needed stay for a while.
  run('nft', 'flush', 'ruleset');
  const proxy = start(
    program,
    '--manifests',
    manifests,
    '--proxy-mode=nftables',
    '--hostname-override=alder',
    '--cluster-cidr=10.61.0.0/16',
  );
  try {
    await proxy.waitFor(bothCompared);
    return run('nft', 'list', 'table', 'ip', 'kube-proxy');
  } finally {
    proxy.kill('SIGTERM');
    await proxy.end();
  }
}

describe('the ruleset', { skip }, () => {
  test('docs/nftables.md shows the whole text for three Services', async () => {
    const listing = await programmed(join(root, 'docs', 'examples', 'three-services.yaml'));
    const docs = readFileSync(join(root, 'docs', 'nftables.md'), 'utf8');
    const shown = [...docs.matchAll(/```nft\n([\s\S]*?)```/g)].map((match) => match[1] ?? '').join('\n');
    assert.equal(normalise(shown), normalise(listing));
    run('nft', '-j', 'list', 'ruleset');
  });

  test('the number of chains does not grow with Services or endpoints', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kpp-docs-'));
    const services = (count: number, endpoints: number): string =>
      Array.from({ length: count }, (_, i) => {
        const ip = `10.177.${i >> 8}.${i & 255}`;
        const pods = Array.from(
          { length: endpoints },
          (_, j) => `{ addresses: [10.61.${i & 255}.${j + 1}] }`,
        );
        return `---
apiVersion: v1
kind: Service
metadata: { name: s${i}, namespace: many }
spec: { clusterIP: ${ip}, ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s${i}, namespace: many, labels: { kubernetes.io/service-name: s${i} } }
addressType: IPv4
ports: [{ name: "", port: 9000 }]
endpoints: [${pods.join(', ')}]
`;
      }).join('');
    const chainsOf = async (count: number, endpoints: number): Promise<number> => {
      writeFileSync(join(folder, 'many.yaml'), services(count, endpoints));
      return [...(await programmed(folder)).matchAll(/^\tchain (?!cluster-\d+ )/gm)].length;
    };
    const few = await chainsOf(3, 2);
    assert.equal(few, 21);
    assert.equal(await chainsOf(500, 2), few);
    assert.equal(await chainsOf(3, 60), few);
    rmSync(folder, { recursive: true });
  });
});
