/** A process that nobody asks anything costs next to nothing, and still notices at once. IDLE_SECONDS=60 for a longer look. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { type Child, manifest, program, proxyArguments, start } from './node.js';
import { bothCompared } from '../both-families.js';

const seconds = Number(process.env['IDLE_SECONDS'] ?? '5');
const skip = enterNetworkNamespace();

/** Share of a core: 0.05 % on a machine of its own, where each wake-up finds cold caches three times that. */
const mostShare = 0.0015;

/** Of all threads so far: how often they have slept and were woken, and milliseconds of processor time. */
function usage(pid: number): { wakeUps: number; processorMs: number } {
  let wakeUps = 0;
  let processorMs = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const read = (name: string): string => readFileSync(`/proc/${pid}/task/${thread}/${name}`, 'utf8');
    wakeUps += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(read('status'))?.[1]);
    // Nanoseconds, from the kernel's Documentation/scheduler/sched-stats.rst; /proc/PID/stat has steps of 10 ms.
    processorMs += Number(read('schedstat').split(' ', 1)[0]) / 1e6;
  }
  return { wakeUps, processorMs };
}

for (const mode of ['nftables', 'iptables'])
  describe(`an idle process, mode ${mode}`, { skip }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'kpp-idle-'));
    let proxy: Child;

    before(async () => {
      writeFileSync(join(folder, 'all.yaml'), manifest);
      proxy = start(program, `--manifests=${folder}`, `--proxy-mode=${mode}`, ...proxyArguments);
      await proxy.waitFor(bothCompared);
    });
    after(async () => {
      proxy.kill('SIGTERM');
      await proxy.end();
      rmSync(folder, { recursive: true });
    });

    test('wakes at most five times a second', async (t) => {
      const pid = proxy.process.pid!;
      // What the start leaves to be compiled and collected takes its time: the first quiet stretch counts.
      const deadline = performance.now() + patiently(60_000);
      for (;;) {
        const before = usage(pid);
        const start = performance.now();
        await sleep(seconds * 1000);
        const after = usage(pid);
        const ms = performance.now() - start;
        const wakeUps = ((after.wakeUps - before.wakeUps) * 1000) / ms;
        const share = (after.processorMs - before.processorMs) / ms;
        const found = `${wakeUps.toFixed(1)} wake-ups a second, ${(share * 100).toFixed(3)} % of a core`;
        t.diagnostic(found);
        if (wakeUps <= 5 && share <= mostShare) return;
        assert.ok(performance.now() < deadline, found);
      }
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
