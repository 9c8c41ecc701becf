import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../../log/logger.js';
import { conntrackMax, ConntrackTuning, type ConntrackSettings } from './conntrack-tuning.js';
import { FakeFiles } from './testing/fake-files.js';
import { tuneConntrack } from './tune-conntrack.js';

const nothing: ConntrackSettings = {
  maxPerCore: 0,
  min: 0,
  tcpEstablishedTimeoutMs: 0,
  tcpCloseWaitTimeoutMs: 0,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
  tcpBeLiberal: false,
};
const netfilter = '/proc/sys/net/netfilter';
const max = `${netfilter}/nf_conntrack_max`;
const hashSize = '/sys/module/nf_conntrack/parameters/hashsize';

/** A kernel with connection tracking. */
function kernel(values: Readonly<Record<string, string>> = {}): FakeFiles {
  return new FakeFiles({
    [max]: '65536',
    [hashSize]: '16384',
    [`${netfilter}/nf_conntrack_tcp_timeout_established`]: '432000',
    [`${netfilter}/nf_conntrack_tcp_timeout_close_wait`]: '60',
    [`${netfilter}/nf_conntrack_tcp_be_liberal`]: '0',
    [`${netfilter}/nf_conntrack_udp_timeout`]: '30',
    [`${netfilter}/nf_conntrack_udp_timeout_stream`]: '120',
    ...values,
  });
}

interface Line {
  readonly msg: string;
  readonly severity?: string;
  readonly [field: string]: unknown;
}

function logTo(lines: Line[]) {
  return createLogger({
    format: 'json',
    verbosity: 0,
    write: (line) => void lines.push(JSON.parse(line) as Line),
  });
}

test('the size of the table', () => {
  const size = (maxPerCore: number, min: number, cpus: number) => conntrackMax({ maxPerCore, min }, cpus);
  // With the defaults, 32768 and 131072.
  assert.deepEqual(
    [1, 4, 5, 32, 33, 256].map((cpus) => size(32768, 131072, cpus)),
    [131072, 131072, 163840, 1048576, 1048576, 1048576],
  );
  assert.equal(size(0, 131072, 4), undefined, '0 per core leaves the table alone');
  assert.equal(size(32768, 4_000_000, 64), 4_000_000, 'an explicit minimum is honoured');
  assert.equal(size(100, 0, 3), 300);
});

test('everything is set, in order, and told', () => {
  const files = kernel();
  const lines: Line[] = [];
  const tuning = new ConntrackTuning(
    {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      udpTimeoutMs: 45_900,
      udpStreamTimeoutMs: 200,
      tcpBeLiberal: true,
    },
    logTo(lines),
    files,
    8,
  );
  assert.equal(tuning.apply(), 'done');
  assert.deepEqual(files.writes, [
    `${max}=262144`,
    `${hashSize}=65536`,
    `${netfilter}/nf_conntrack_tcp_timeout_established=86400`,
    `${netfilter}/nf_conntrack_tcp_timeout_close_wait=3600`,
    `${netfilter}/nf_conntrack_tcp_be_liberal=1`,
    `${netfilter}/nf_conntrack_udp_timeout=45`,
    `${netfilter}/nf_conntrack_udp_timeout_stream=1`,
  ]);
  assert.deepEqual(lines.map(({ path, before, now }) => [path, before, now]).slice(0, 2), [
    [max, '65536', 262144],
    [hashSize, '16384', 65536],
  ]);
  assert.equal(tuning.apply(), 'done');
  assert.equal(files.writes.length, 7, 'a second time does nothing');
});

test('0 and false leave everything alone', () => {
  const files = kernel();
  assert.equal(new ConntrackTuning(nothing, logTo([]), files, 4).apply(), 'done');
  assert.deepEqual(files.writes, []);
});

test('values that are right are not written', () => {
  const files = kernel({ [max]: '131072', [hashSize]: '32768' });
  const tuning = new ConntrackTuning({ ...nothing, maxPerCore: 32768, min: 131072 }, logTo([]), files, 4);
  assert.equal(tuning.apply(), 'done');
  assert.deepEqual(files.writes, []);
});

test('a higher limit of the administrator stays; its hash table gets no smaller', () => {
  const files = kernel({ [max]: '2000000', [hashSize]: '500000' });
  const lines: Line[] = [];
  const settings = { ...nothing, maxPerCore: 32768, min: 131072 };
  assert.equal(new ConntrackTuning(settings, logTo(lines), files, 4).apply(), 'done');
  assert.deepEqual(files.writes, []);
  assert.deepEqual(
    lines.map(({ msg, present, configured }) => [msg, present, configured]),
    [['nf_conntrack_max is already higher than configured, leaving it', 2_000_000, 131_072]],
  );
});

test('read-only /proc/sys: one warning with path, values and cure; the others are tried all the same', () => {
  const files = kernel();
  files.refused.set(max, 'EROFS');
  const lines: Line[] = [];
  const settings = { ...nothing, maxPerCore: 32768, min: 131072, udpTimeoutMs: 60_000 };
  const tuning = new ConntrackTuning(settings, logTo(lines), files, 4);
  assert.equal(tuning.apply(), 'done');
  assert.equal(tuning.apply(), 'done');
  const warnings = lines.filter(({ severity }) => severity === 'warning');
  assert.equal(warnings.length, 1, 'told once');
  const [warning] = warnings;
  assert.equal(warning?.['path'], max);
  assert.equal(warning['wanted'], '131072');
  assert.equal(warning['present'], '65536');
  assert.match(
    String(warning['problem']),
    /mounted read-only.*sysctl -w net\.netfilter\.nf_conntrack_max=131072/,
  );
  assert.equal(warning['orElse'], 'conntrack.maxPerCore: 0 leaves it alone');
  assert.deepEqual(
    files.writes,
    [`${netfilter}/nf_conntrack_udp_timeout=60`],
    'no hash size without its limit',
  );
});

test('read-only /sys: the limit is set, the hash size is a warning', () => {
  const files = kernel();
  files.refused.set(hashSize, 'EROFS');
  const lines: Line[] = [];
  const settings = { ...nothing, maxPerCore: 32768, min: 131072 };
  assert.equal(new ConntrackTuning(settings, logTo(lines), files, 4).apply(), 'done');
  assert.deepEqual(files.writes, [`${max}=131072`]);
  assert.deepEqual(
    lines.filter(({ severity }) => severity === 'warning').map(({ path }) => path),
    [hashSize],
  );
});

test('a setting that this kernel lacks is a warning', () => {
  const files = new FakeFiles({ [max]: '65536' });
  const lines: Line[] = [];
  const tuning = new ConntrackTuning({ ...nothing, tcpBeLiberal: true }, logTo(lines), files, 4);
  assert.equal(tuning.apply(), 'done');
  assert.match(String(lines[0]?.['problem']), /has no such setting/);
  assert.equal(lines[0]?.['orElse'], 'conntrack.tcpBeLiberal: false leaves it alone');
});

test('no connection tracking yet: told once, done when it appears', () => {
  const files = new FakeFiles();
  const lines: Line[] = [];
  const settings = { ...nothing, maxPerCore: 32768, min: 131072 };
  const tuning = new ConntrackTuning(settings, logTo(lines), files, 4);
  assert.equal(tuning.apply(), 'pending');
  assert.equal(tuning.apply(), 'pending');
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.severity, 'warning');
  files.create(max, '65536');
  files.create(hashSize, '16384');
  assert.equal(tuning.apply(), 'done');
  assert.deepEqual(files.writes, [`${max}=131072`, `${hashSize}=32768`]);
});

test('tuneConntrack: a kernel that loads it when asked is done at once', () => {
  const files = new FakeFiles();
  let asked = 0;
  const tuning = tuneConntrack({ ...nothing, maxPerCore: 10, min: 20 }, logTo([]), {
    files,
    load: () => {
      asked++;
      files.create(max, '65536');
      files.create(hashSize, '16384');
    },
  });
  assert.equal(asked, 1);
  assert.equal(tuning.done, true);
  tuning.stop();
});

test('tuneConntrack: a kernel that has it already is not asked', () => {
  const load = (): void => assert.fail('asked');
  assert.equal(tuneConntrack(nothing, logTo([]), { files: kernel(), load }).done, true);
});

test('tuneConntrack: a kernel that gets it later', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const files = new FakeFiles();
  const lines: Line[] = [];
  const settings = { ...nothing, udpTimeoutMs: 60_000 };
  const tuning = tuneConntrack(settings, logTo(lines), { files, load: () => undefined, retryMs: 1000 });
  t.mock.timers.tick(5000);
  assert.equal(tuning.done, false);
  files.create(`${netfilter}/nf_conntrack_udp_timeout`, '30');
  t.mock.timers.tick(1000);
  assert.equal(tuning.done, true);
  assert.deepEqual(files.writes, [`${netfilter}/nf_conntrack_udp_timeout=60`]);
  const count = lines.length;
  t.mock.timers.tick(60_000);
  assert.equal(lines.length, count, 'and then it is quiet');
});
