/** A process that nobody asks anything costs next to nothing, and still notices at once. IDLE_SECONDS=60 for a longer look. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { type Child, manifest, program, proxyArguments, start } from './node.js';

const seconds = Number(process.env['IDLE_SECONDS'] ?? '10');
const skip = enterNetworkNamespace();

/** Context switches of all threads so far, each of which has slept and was woken; processor time in 1/100 s. */
function usage(pid: number): { wakeUps: number; ticks: number } {
  let wakeUps = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
    wakeUps += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)?.[1]);
  }
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return { wakeUps, ticks: Number(fields[11]) + Number(fields[12]) };
}

describe('an idle process', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-idle-'));
  let proxy: Child;

  before(async () => {
    writeFileSync(join(folder, 'all.yaml'), manifest);
    proxy = start(program, `--manifests=${folder}`, ...proxyArguments);
    await proxy.waitFor(/"Kernel state compared and completed" .*family="IPv6"/);
  });
  after(async () => {
    proxy.kill('SIGTERM');
    await proxy.end();
    rmSync(folder, { recursive: true });
  });

  test('wakes at most five times a second', async (t) => {
    // What the start leaves to be compiled and collected.
    await sleep(10_000);
    const pid = proxy.process.pid!;
    const before = usage(pid);
    await sleep(seconds * 1000);
    const after = usage(pid);
    const wakeUps = (after.wakeUps - before.wakeUps) / seconds;
    const share = (after.ticks - before.ticks) / seconds;
    t.diagnostic(`${wakeUps.toFixed(1)} wake-ups a second, ${share.toFixed(2)} % of a core`);
    assert.ok(wakeUps <= 5, `${wakeUps.toFixed(1)} wake-ups a second`);
    // The clock of processor time has steps of 1/100 s.
    assert.ok(after.ticks - before.ticks <= 1 + 0.5 * seconds, `${share.toFixed(2)} % of a core`);
  });

  test('SIGUSR1 does not open the debugger', async () => {
    proxy.kill('SIGUSR1');
    await sleep(500);
    const listening = readFileSync('/proc/net/tcp', 'utf8');
    // 127.0.0.1:9229, listening
    assert.doesNotMatch(listening, /0100007F:240D \S+ 0A/);
    assert.doesNotMatch(proxy.output, /Debugger/);
    assert.equal(proxy.process.exitCode, null);
  });
});
