import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { systemFiles } from './files.js';
import { setSysctl, SettingError, writeSetting, type SettingErrorCode } from './setting.js';
import { FakeFiles } from './testing/fake-files.js';

const forward = '/proc/sys/net/ipv4/ip_forward';

test('a value that is right is not written', () => {
  const files = new FakeFiles({ [forward]: '1' });
  files.refused.set(forward, 'EROFS');
  assert.deepEqual(setSysctl('net/ipv4/ip_forward', 1, files), { changed: false, before: '1' });
});

test('a value that differs is written', () => {
  const files = new FakeFiles({ [forward]: '0' });
  assert.deepEqual(setSysctl('net/ipv4/ip_forward', 1, files), { changed: true, before: '0' });
  assert.deepEqual(files.writes, [`${forward}=1`]);
});

test('on real files: nothing is created, nothing is left of a longer value', (t) => {
  const root = mkdtempSync(path.join(tmpdir(), 'setting-'));
  t.after(() => {
    rmSync(root, { recursive: true });
  });
  const files = systemFiles(root);
  mkdirSync(path.join(root, '/proc/sys/net/ipv4'), { recursive: true });
  writeFileSync(path.join(root, forward), '0\n');
  assert.deepEqual(setSysctl('net/ipv4/ip_forward', 1, files), { changed: true, before: '0' });
  assert.equal(readFileSync(path.join(root, forward), 'utf8').trim(), '1');
  assert.throws(() => setSysctl('net/ipv4/ip_froward', 1, files), { code: 'ERR_SETTING_MISSING' });
  assert.equal(files.exists('/proc/sys/net/ipv4/ip_froward'), false);
});

const refusals: readonly {
  readonly name: string;
  readonly path: string;
  readonly errno: string;
  readonly readOnlyMode?: true;
  readonly code: SettingErrorCode;
  readonly message: RegExp;
}[] = [
  {
    name: 'read-only /proc/sys',
    path: forward,
    errno: 'EROFS',
    code: 'ERR_SETTING_READ_ONLY',
    message:
      /^cannot set \/proc\/sys\/net\/ipv4\/ip_forward to 1 \(it is 0\): \/proc\/sys is mounted read-only here: .*'sysctl -w net\.ipv4\.ip_forward=1'$/,
  },
  {
    name: 'read-only /sys',
    path: '/sys/module/nf_conntrack/parameters/hashsize',
    errno: 'EROFS',
    code: 'ERR_SETTING_READ_ONLY',
    message:
      /: \/sys is mounted read-only here: .*'echo 1 > \/sys\/module\/nf_conntrack\/parameters\/hashsize'$/,
  },
  {
    name: 'the OOM score without CAP_SYS_RESOURCE',
    path: '/proc/self/oom_score_adj',
    errno: 'EACCES',
    code: 'ERR_SETTING_NOT_PERMITTED',
    // A command with `self` would make the operator's shell unkillable.
    message: /: not permitted: the container needs the capability SYS_RESOURCE$/,
  },
  {
    name: 'a setting of the host',
    path: forward,
    errno: 'EACCES',
    readOnlyMode: true,
    code: 'ERR_SETTING_NOT_OURS',
    message: /only the host's network namespace may change it/,
  },
  {
    name: 'no privilege',
    path: forward,
    errno: 'EPERM',
    code: 'ERR_SETTING_NOT_PERMITTED',
    message: /not permitted: run as root in a privileged container/,
  },
  {
    name: 'a value the kernel does not take',
    path: forward,
    errno: 'EINVAL',
    code: 'ERR_SETTING_REFUSED',
    message: /the kernel refused it: EINVAL/,
  },
];

for (const { name, path: file, errno, readOnlyMode, code, message } of refusals) {
  test(`refused: ${name}`, () => {
    const files = new FakeFiles({ [file]: '0' });
    files.refused.set(file, errno);
    if (readOnlyMode === true) files.readOnly.add(file);
    assert.throws(
      () => writeSetting(file, 1, files),
      (error) => {
        assert.ok(error instanceof SettingError);
        assert.equal(error.code, code);
        assert.equal(error.present, '0');
        assert.match(error.message, message);
        assert.ok(error.cause instanceof Error);
        return true;
      },
    );
  });
}
