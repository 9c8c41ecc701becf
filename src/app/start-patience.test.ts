import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeError, type KubeErrorCode } from '../sources/kube/errors.js';
import { exitCodes } from '../exit/exit-codes.js';
import { StartPatience } from './start-patience.js';

const error = (code: KubeErrorCode): KubeError => new KubeError(code, `trouble: ${code}`);

for (const [code, exitCode] of [
  ['KUBE_UNAUTHORIZED', exitCodes.apiUnauthorized],
  ['KUBE_FORBIDDEN', exitCodes.apiUnauthorized],
  ['KUBE_EXEC_PLUGIN', exitCodes.credentials],
  ['KUBE_CREDENTIAL_FILE', exitCodes.credentials],
] as const) {
  test(`${code} ends a start when it has lasted for 10 s`, () => {
    let now = 0;
    const patience = new StartPatience(0, () => now);
    for (const at of [0, 2000, 9999]) {
      now = at;
      assert.equal(patience.judge(error(code)), undefined);
    }
    now = 10_000;
    assert.equal(patience.judge(error(code))?.exitCode, exitCode);
  });

  test(`${code} that goes away in between does not`, () => {
    let now = 0;
    const patience = new StartPatience(0, () => now);
    assert.equal(patience.judge(error(code)), undefined);
    now = 9000;
    assert.equal(patience.judge(undefined), undefined);
    now = 12_000;
    assert.equal(patience.judge(error(code)), undefined);
    now = 18_000;
    assert.equal(patience.judge(error('KUBE_CONNECT_REFUSED')), undefined);
    now = 25_000;
    assert.equal(patience.judge(error(code)), undefined);
  });
}

for (const code of ['KUBE_TLS_EXPIRED', 'KUBE_TLS_UNTRUSTED', 'KUBE_TLS_HOSTNAME'] as const) {
  test(`${code} ends a start at once`, () => {
    assert.equal(new StartPatience(0).judge(error(code))?.exitCode, exitCodes.apiCertificate);
  });
}

test('a server that is away ends a start after --startup-timeout, or never', () => {
  let now = 0;
  const [limited, endless] = [new StartPatience(5000, () => now), new StartPatience(0, () => now)];
  now = 4999;
  assert.equal(limited.judge(error('KUBE_DNS')), undefined);
  now = 5000;
  assert.match(limited.judge(error('KUBE_DNS'))?.message ?? '', /^gave up after 5 s/);
  now = 1e9;
  assert.equal(endless.judge(error('KUBE_DNS')), undefined);
});
