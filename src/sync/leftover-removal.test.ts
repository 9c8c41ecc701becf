/** What another mode left is removed, and what fails is tried again, but neither for ever nor with a line for each time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Drain } from '../backends/removal-report.js';
import { Report } from '../backends/removal-report.js';
import { createLogger } from '../log/logger.js';
import { LeftoverRemoval } from './leftover-removal.js';

function begin(outcomes: readonly ((report: Report) => void)[], retryAfterMs = [10, 20, 30], drain?: Drain) {
  const lines: string[] = [];
  const at: number[] = [];
  const removal = new LeftoverRemoval({
    remove: () => {
      const report = new Report();
      outcomes[Math.min(at.length, outcomes.length - 1)]?.(report);
      at.push(performance.now());
      return Promise.resolve({ outcomes: report.outcomes, drains: drain === undefined ? [] : [drain] });
    },
    log: createLogger({ format: 'text', verbosity: 0, write: (line) => lines.push(line) }),
    retryAfterMs,
  });
  const settled = async (attempts: number): Promise<void> => {
    for (let i = 0; i < 400 && at.length < attempts; i++) await sleep(5);
    await sleep(60);
    assert.equal(at.length, attempts);
  };
  return { removal, lines, at, settled };
}

const locked = (report: Report): void => {
  report.failed('iptables-legacy', new Error('other programs have held the lock for 30 s'));
};
const done = (report: Report): void => {
  report.removed('chain KUBE-SERVICES');
};

test('what succeeds is done once', async () => {
  const { removal, lines, settled } = begin([done]);
  removal.start();
  await settled(1);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^I.*Removed leftovers of another mode.* what="chain KUBE-SERVICES"/);
  removal.stop();
});

test('what fails is tried again after growing pauses, until it succeeds; the same failure is told once', async () => {
  const { removal, lines, at, settled } = begin([locked, locked, done]);
  removal.start();
  await settled(3);
  const pauses = at.slice(1).map((time, i) => time - (at[i] ?? 0));
  assert.ok((pauses[0] ?? 0) >= 9 && (pauses[1] ?? 0) >= 19, pauses.join());
  assert.equal(lines.filter((line) => line.startsWith('E')).length, 1);
  assert.equal(lines.filter((line) => line.includes('Removed leftovers of another mode')).length, 1);
  removal.stop();
});

test('another failure is told, too; in the end it is left to --cleanup', async () => {
  const other = (report: Report): void => {
    report.failed('iptables-legacy', new Error('no such table'));
    report.kept('chain KUBE-MARK-MASQ', 'chain HOSTPORTS leads there');
  };
  const { removal, lines, settled } = begin([locked, other]);
  removal.start();
  await settled(4);
  assert.equal(lines.filter((line) => line.startsWith('E')).length, 2);
  assert.equal(lines.filter((line) => line.includes('Leftover rules kept, still in use')).length, 1);
  assert.match(lines.at(-1) ?? '', /^W.*Giving up on leftovers, run kube-proxy --cleanup/);
  removal.stop();
});

test('what somebody else uses is no failure', async () => {
  const { removal, settled } = begin([
    (report) => {
      report.kept('chain KUBE-MARK-MASQ', 'chain HOSTPORTS leads there');
    },
  ]);
  removal.start();
  await settled(1);
  removal.stop();
});

test('what is not permitted is one line with the capability that is missing, and no further try', async () => {
  const { removal, lines, settled } = begin([
    (report) => {
      for (const family of ['ip', 'ip6']) {
        try {
          openAsRootOnly(family);
        } catch (error) {
          report.failed(`iptables (legacy) rules of family ${family}`, error);
        }
      }
    },
  ]);
  removal.start();
  await settled(1);
  assert.equal(lines.length, 1, lines.join(''));
  assert.match(
    lines[0] ?? '',
    /^W.*Not permitted to look for leftovers.* what=\["iptables \(legacy\) rules of family ip","iptables.* ip6"\].* capability="DAC_OVERRIDE".*EACCES/,
  );
  removal.stop();
});

/** @throws Error as reading a file of root does for others */
function openAsRootOnly(family: string): never {
  const path = `/proc/net/${family}_tables_names`;
  const message = `EACCES: permission denied, open '${path}'`;
  throw Object.assign(new Error(message), { code: 'EACCES', errno: -13, syscall: 'open', path });
}

test('stop ends the attempts', async () => {
  const { removal, at } = begin([locked], [30, 30]);
  removal.start();
  await sleep(5);
  removal.stop();
  await sleep(80);
  assert.equal(at.length, 1);
});

test('connections of mode ipvs are waited for until none is left', async () => {
  let steps = 0;
  const drain = {
    step: (report: Report): Promise<unknown> => {
      steps++;
      if (steps < 3) return Promise.resolve({ connections: 1 });
      report.removed('IPVS virtual servers');
      return Promise.resolve(undefined);
    },
  };
  const { removal, lines } = begin(
    [
      (report) => {
        report.draining('2 connections');
      },
    ],
    [],
    drain,
  );
  removal.start();
  await sleep(5);
  assert.match(lines[0] ?? '', /Draining connections of another mode/);
  for (let i = 0; i < 6; i++) await removal.continueDraining();
  assert.equal(steps, 3);
  assert.match(lines[1] ?? '', /Removed leftovers of another mode.* what="IPVS virtual servers"/);
  removal.stop();
});
