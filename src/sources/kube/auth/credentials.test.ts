import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { silentLogger } from '../../../log/logger.js';
import { loadCredentials } from './credentials.js';
import { KubeError } from '../errors.js';

function folder(t: TestContext): string {
  const made = mkdtempSync(path.join(os.tmpdir(), 'kubeconfig-'));
  t.after(() => {
    rmSync(made, { recursive: true, force: true });
  });
  return made;
}

function write(root: string, name: string, content: string | object): string {
  const file = path.join(root, name);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

const config = (user: object = {}, cluster: object = {}, more: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Config',
  clusters: [{ name: 'c', cluster: { server: 'https://192.0.2.1:6443', ...cluster } }],
  users: [{ name: 'u', user }],
  contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
  'current-context': 'x',
  ...more,
});

const mistakes: readonly (readonly [string, string | object, string, RegExp])[] = [
  ['not YAML', 'a: [1,\nb', 'KUBE_CONFIG_INVALID', /is not YAML at line 3, column \d+ \(.+\): fix the file$/],
  ['text', 'hello', 'KUBE_CONFIG_INVALID', /is not a kubeconfig/],
  ['empty', '', 'KUBE_CONFIG_INVALID', /is empty: it needs clusters, contexts and a current-context/],
  [
    'no server',
    { clusters: [{ name: 'c', cluster: {} }], contexts: [] },
    'KUBE_CONFIG_INVALID',
    /clusters\[0\]\.cluster\.server is missing/,
  ],
  [
    'no current context',
    config({}, {}, { 'current-context': '' }),
    'KUBE_CONTEXT_MISSING',
    /has no current-context \(contexts: it has: x\): set one with kubectl config use-context/,
  ],
  [
    'context that is not there',
    config({}, {}, { 'current-context': 'y' }),
    'KUBE_CONTEXT_MISSING',
    /current-context is y, but there is no such context \(it has: x\)/,
  ],
  [
    'cluster that is not there',
    config({}, {}, { clusters: [] }),
    'KUBE_CLUSTER_MISSING',
    /context x names cluster c, which is missing \(it has none\)/,
  ],
  [
    'user that is not there',
    config({}, {}, { users: [] }),
    'KUBE_USER_MISSING',
    /context x names user u, which is missing/,
  ],
  [
    'certificate file that is not there',
    config({ 'client-certificate': 'no.crt', 'client-key': 'no.key' }),
    'KUBE_CREDENTIAL_FILE',
    /^client-certificate \/.*\/no\.crt can't be read \(no such file\)/,
  ],
  [
    'CA file that is not there',
    config({}, { 'certificate-authority': 'sub/ca.crt' }),
    'KUBE_CREDENTIAL_FILE',
    /^certificate-authority \/.*\/sub\/ca\.crt can't be read/,
  ],
  [
    'certificate without key',
    config({ 'client-certificate-data': 'aGFsbG8=' }),
    'KUBE_CONFIG_INVALID',
    /user u needs both client-certificate and client-key/,
  ],
  [
    'token file that is not there',
    config({ tokenFile: 'no' }),
    'KUBE_CREDENTIAL_FILE',
    /^token file \/.*\/no can't/,
  ],
  [
    'bad URL',
    config({}, { server: 'ftp://x' }),
    'KUBE_SERVER_URL',
    /"ftp:\/\/x" is not the URL of an API server/,
  ],
  [
    'SOCKS proxy',
    config({}, { 'proxy-url': 'socks5://x:1' }),
    'KUBE_PROXY',
    /only http:\/\/host:port and https/,
  ],
  [
    'auth provider',
    config({ 'auth-provider': { name: 'gcp' } }),
    'KUBE_AUTH_UNSUPPORTED',
    /user u has an auth-provider, which is not supported: use/,
  ],
];
for (const [name, content, code, message] of mistakes) {
  test(`kubeconfig mistake: ${name}`, async (t) => {
    const file = write(folder(t), 'config', content);
    await assert.rejects(loadCredentials({ kubeconfig: file, environment: {} }, silentLogger), (error) => {
      assert.ok(error instanceof KubeError);
      assert.equal(error.code, code, error.message);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}

test('kubeconfig that does not exist, is a folder, or may not be read', async (t) => {
  const root = folder(t);
  const load = (kubeconfig: string): Promise<unknown> => loadCredentials({ kubeconfig }, silentLogger);
  await assert.rejects(load(path.join(root, 'no')), { code: 'KUBE_CONFIG_MISSING' });
  await assert.rejects(load(root), { code: 'KUBE_CONFIG_UNREADABLE' });
  if (process.getuid?.() !== 0) {
    const file = write(root, 'secret', config());
    chmodSync(file, 0);
    await assert.rejects(load(file), { code: 'KUBE_CONFIG_UNREADABLE' });
  }
});

test('client certificate, CA, server name, token', async (t) => {
  const root = folder(t);
  write(root, 'ca.crt', 'CA');
  write(root, 'tls.crt', 'CERT');
  write(root, 'tls.key', 'KEY');
  const file = write(
    root,
    'config',
    config(
      {
        'client-certificate': 'tls.crt',
        'client-key': 'tls.key',
        token: 'secret',
        as: 'me',
        'as-groups': ['g'],
      },
      {
        'certificate-authority': 'ca.crt',
        'tls-server-name': 'kubernetes',
        'proxy-url': 'http://proxy:3128',
      },
    ),
  );
  const credentials = await loadCredentials({ kubeconfig: file }, silentLogger);
  assert.equal(credentials.server.href, 'https://192.0.2.1:6443/');
  assert.equal(credentials.proxy?.host, 'proxy:3128');
  assert.deepEqual(await credentials.tls(), {
    ca: Buffer.from('CA'),
    cert: Buffer.from('CERT'),
    key: Buffer.from('KEY'),
    servername: 'kubernetes',
  });
  assert.deepEqual(await credentials.headers(), {
    authorization: 'Bearer secret',
    'impersonate-user': 'me',
    'impersonate-group': ['g'],
  });
  // A renewed certificate is used by the next connection.
  write(root, 'tls.crt', 'CERT2');
  assert.deepEqual((await credentials.tls()).cert, Buffer.from('CERT2'));
});

test('YAML, data instead of files, basic auth, insecure', async (t) => {
  const file = write(
    folder(t),
    'config',
    `apiVersion: v1
clusters:
- name: c
  cluster:
    server: https://[2001:db8::1]:6443/k8s/clusters/c-1/
    insecure-skip-tls-verify: true
users:
- name: u
  user: { username: me, password: pass }
contexts:
- name: x
  context: { cluster: c, user: u }
current-context: x
`,
  );
  const credentials = await loadCredentials({ kubeconfig: file }, silentLogger);
  assert.equal(credentials.server.pathname, '/k8s/clusters/c-1');
  assert.deepEqual(await credentials.tls(), { rejectUnauthorized: false });
  assert.deepEqual(await credentials.headers(), { authorization: 'Basic bWU6cGFzcw==' });
});

test('--master overrides the server, or stands alone', async (t) => {
  const file = write(folder(t), 'config', config({ token: 'x' }));
  const both = await loadCredentials({ kubeconfig: file, master: '127.0.0.1:8443' }, silentLogger);
  assert.equal(both.server.href, 'https://127.0.0.1:8443/');
  assert.deepEqual(await both.headers(), { authorization: 'Bearer x' });
  const alone = await loadCredentials({ master: '127.0.0.1:8080' }, silentLogger);
  assert.equal(alone.server.href, 'http://127.0.0.1:8080/');
  assert.deepEqual(await alone.headers(), {});
  await assert.rejects(loadCredentials({ master: 'http://' }, silentLogger), { code: 'KUBE_SERVER_URL' });
});

test('in a pod', async (t) => {
  const root = folder(t);
  const environment = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
  const options = { environment, serviceAccountFolder: root };
  await assert.rejects(loadCredentials(options, silentLogger), {
    code: 'KUBE_CREDENTIAL_FILE',
    message: /token can't be read \(no such file\)/,
  });
  write(root, 'token', 'abc\n');
  write(root, 'ca.crt', 'CA');
  const credentials = await loadCredentials(options, silentLogger);
  assert.equal(credentials.server.href, 'https://[fd00::1]/');
  assert.deepEqual(await credentials.headers(), { authorization: 'Bearer abc' });
  assert.deepEqual(await credentials.tls(), { ca: Buffer.from('CA') });
  // Read again when the server does not like it any more.
  write(root, 'token', 'def');
  assert.deepEqual(await credentials.headers(), { authorization: 'Bearer abc' });
  credentials.rejected();
  assert.deepEqual(await credentials.headers(), { authorization: 'Bearer def' });
});

test('neither kubeconfig nor pod', async () => {
  await assert.rejects(loadCredentials({ environment: {} }, silentLogger), {
    code: 'KUBE_NOT_IN_CLUSTER',
    message: /KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT/,
  });
});

test('an empty kubeconfig in a pod falls back to the service account', async (t) => {
  const root = folder(t);
  write(root, 'token', 'abc');
  const kubeconfig = write(root, 'config', 'apiVersion: v1\nkind: Config\nclusters: []\n');
  const credentials = await loadCredentials(
    {
      kubeconfig,
      environment: { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' },
      serviceAccountFolder: root,
    },
    silentLogger,
  );
  assert.equal(credentials.server.hostname, '10.96.0.1');
});

const execUser = (command: string, more: object = {}): object => ({
  exec: { apiVersion: 'client.authentication.k8s.io/v1', command, ...more },
});

test('an exec plugin gives the token, and is asked again after a refusal', async (t) => {
  const root = folder(t);
  const script = write(
    root,
    'plugin',
    `#!/bin/sh
echo x >> "${root}/runs"
test -n "$KUBERNETES_EXEC_INFO" || exit 1
echo '{"kind":"ExecCredential","status":{"token":"'"$PREFIX"'-token"}}'
`,
  );
  chmodSync(script, 0o755);
  const user = execUser('./plugin', { env: [{ name: 'PREFIX', value: 'my' }] });
  const kubeconfig = write(root, 'config', config(user));
  const outcomes: string[] = [];
  const onPlugin = (outcome: string): void => void outcomes.push(outcome);
  const credentials = await loadCredentials({ kubeconfig, onPlugin }, silentLogger);
  const runs = async (): Promise<number> => {
    const { readFile } = await import('node:fs/promises');
    return (await readFile(path.join(root, 'runs'), 'utf8')).split('\n').length - 1;
  };
  assert.deepEqual(await credentials.headers(), { authorization: 'Bearer my-token' });
  assert.deepEqual(await credentials.headers(), { authorization: 'Bearer my-token' });
  assert.deepEqual(await credentials.tls(), {});
  assert.equal(await runs(), 1);
  credentials.rejected();
  await credentials.headers();
  assert.equal(await runs(), 2);
  assert.deepEqual(outcomes, ['no_error', 'no_error']);
});

test('an exec plugin that is missing or fails', async (t) => {
  const root = folder(t);
  const outcomes: string[] = [];
  const onPlugin = (outcome: string): void => void outcomes.push(outcome);
  const load = async (user: object): Promise<unknown> => {
    const kubeconfig = write(root, 'config', config(user));
    return (await loadCredentials({ kubeconfig, onPlugin }, silentLogger)).headers();
  };
  await assert.rejects(load(execUser('no-such-plugin', { installHint: 'get it from the shelf' })), {
    code: 'KUBE_EXEC_PLUGIN',
    message: /"no-such-plugin" of user u is not installed: get it from the shelf/,
  });
  const script = write(root, 'fails', '#!/bin/sh\necho "no login" >&2\nexit 3\n');
  chmodSync(script, 0o755);
  await assert.rejects(load(execUser('./fails')), {
    code: 'KUBE_EXEC_PLUGIN',
    message: /"\.\/fails" of user u failed: no login/,
  });
  assert.deepEqual(outcomes, ['plugin_not_found_error', 'plugin_execution_error']);
});
