/** The double itself, seen by the real kubectl and through its commands. */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ApiServer } from './server.js';

function hasKubectl(): boolean {
  try {
    execFileSync('kubectl', ['version', '--client'], { stdio: 'ignore', timeout: 10_000 });
    return true;
  } catch {
    return false;
  }
}

test(
  'the real kubectl lists and gets',
  { skip: hasKubectl() ? false : 'there is no kubectl here' },
  async (t) => {
    const server = await ApiServer.start();
    const cache = mkdtempSync(path.join(os.tmpdir(), 'kubectl-'));
    t.after(async () => {
      await server.close();
      rmSync(cache, { recursive: true, force: true });
    });
    const kubectl = async (...options: string[]): Promise<string> => {
      const { stdout } = await promisify(execFile)(
        'kubectl',
        ['--server', server.url, '--cache-dir', cache, ...options],
        { timeout: 20_000, env: { ...process.env, KUBECONFIG: '/dev/null', HOME: cache } },
      );
      return stdout;
    };
    server.store.put({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }] },
    });
    server.store.put({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'web-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
      addressType: 'IPv4',
      endpoints: [{ addresses: ['10.0.0.1'] }],
    });
    server.store.put({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1' } });
    assert.match(await kubectl('get', 'services', '-A'), /^shop +web /m);
    assert.match(
      await kubectl('get', 'endpointslices', '-n', 'shop', '-l', 'kubernetes.io/service-name=web'),
      /^web-1 /m,
    );
    assert.match(await kubectl('get', 'nodes'), /^node-1 /m);
    assert.equal(
      await kubectl(
        'get',
        'svc',
        'web',
        '-n',
        'shop',
        '-o',
        'jsonpath={.spec.clusterIPs[0]} {.spec.sessionAffinity}',
      ),
      '10.96.0.1 None',
    );
    await kubectl('delete', 'svc', 'web', '-n', 'shop', '--wait=false');
    assert.equal(await kubectl('get', 'svc', '-A', '-o', 'name'), '');
  },
);

test('commands over HTTP', async (t) => {
  const server = await ApiServer.start();
  t.after(() => server.close());
  const command = async (name: string, body?: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`${server.url}/control/${name}`, {
      method: 'POST',
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return (await answer.json()) as Record<string, unknown>;
  };
  await command('put', [
    { apiVersion: 'v1', kind: 'Node', metadata: { name: 'a' } },
    { apiVersion: 'v1', kind: 'Node', metadata: { name: 'b' } },
  ]);
  const { objects, deleted } = await command('delete?kind=Node&name=a');
  assert.equal(deleted, true);
  assert.deepEqual(objects, { Service: 0, Node: 1, EndpointSlice: 0, ServiceCIDR: 0 });
  const state = await command('generate?services=3&endpoints=120');
  assert.deepEqual(state['objects'], { Service: 3, Node: 1, EndpointSlice: 6, ServiceCIDR: 0 });
  await command('fail?status=503&count=1&match=/nodes');
  assert.equal((await fetch(`${server.url}/api/v1/nodes`)).status, 503);
  assert.equal((await fetch(`${server.url}/api/v1/nodes`)).status, 200);
  assert.match(String((await command('nonsense'))['error']), /no command/);
});
