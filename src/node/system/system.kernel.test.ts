/** Settings of a network namespace of its own, on the real files. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { createLogger, silentLogger } from '../../log/logger.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { loadConntrack, setOOMScore, setSysctl, tuneConntrack } from './index.js';

const skip = enterNetworkNamespace();
const netfilter = '/proc/sys/net/netfilter';
const read = (path: string): string => readFileSync(path, 'utf8').trim();

test('a kernel that is asked for connection tracking has it', { skip }, () => {
  loadConntrack(silentLogger);
  assert.ok(existsSync(`${netfilter}/nf_conntrack_max`));
});

test('timeouts and liberal belong to the namespace', { skip }, () => {
  const tuning = tuneConntrack(
    {
      maxPerCore: 0,
      min: 0,
      tcpEstablishedTimeoutMs: 12_345_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      udpTimeoutMs: 41_000,
      udpStreamTimeoutMs: 142_000,
      tcpBeLiberal: true,
    },
    silentLogger,
  );
  assert.equal(tuning.done, true);
  const values = [
    'tcp_timeout_established',
    'tcp_timeout_close_wait',
    'udp_timeout',
    'udp_timeout_stream',
    'tcp_be_liberal',
  ];
  assert.deepEqual(
    values.map((name) => read(`${netfilter}/nf_conntrack_${name}`)),
    ['12345', '3600', '41', '142', '1'],
  );
});

test('the limit belongs to the host: a warning that says so', { skip }, () => {
  const before = Number(read(`${netfilter}/nf_conntrack_max`));
  const hashSize = '/sys/module/nf_conntrack/parameters/hashsize';
  const buckets = read(hashSize);
  const lines: Record<string, unknown>[] = [];
  const log = createLogger({
    format: 'json',
    verbosity: 0,
    write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>),
  });
  const tuning = tuneConntrack(
    {
      maxPerCore: 1,
      min: before + 1,
      tcpEstablishedTimeoutMs: 0,
      tcpCloseWaitTimeoutMs: 0,
      udpTimeoutMs: 0,
      udpStreamTimeoutMs: 0,
      tcpBeLiberal: false,
    },
    log,
  );
  assert.equal(tuning.done, true);
  assert.equal(Number(read(`${netfilter}/nf_conntrack_max`)), before);
  assert.equal(read(hashSize), buckets, 'the hash table, which is the host’s too, is left alone');
  assert.deepEqual(
    lines.map(({ severity, path, wanted, present }) => [severity, path, wanted, present]),
    [['warning', `${netfilter}/nf_conntrack_max`, String(before + 1), String(before)]],
  );
  assert.match(String(lines[0]?.['problem']), /only the host's network namespace may change it/);
});

test('a sysctl', { skip }, () => {
  const name = 'net/ipv4/conf/all/route_localnet';
  assert.deepEqual(setSysctl(name, 1), { changed: true, before: '0' });
  assert.deepEqual(setSysctl(name, 1), { changed: false, before: '1' });
  assert.equal(read(`/proc/sys/${name}`), '1');
  assert.throws(() => setSysctl(name, 'much'), { code: 'ERR_SETTING_REFUSED', present: '1' });
});

test('the OOM score of this process', { skip }, async (t) => {
  const path = '/proc/self/oom_score_adj';
  const before = read(path);
  t.after(() => {
    writeFileSync(path, before);
  });
  assert.equal(await setOOMScore(321, silentLogger), true);
  assert.equal(read(path), '321');
  assert.equal(await setOOMScore(5000, silentLogger), false, 'out of range');
  assert.equal(read(path), '321');
});
