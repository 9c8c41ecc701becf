import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

test('without descriptors for a run there is an error, and the process lives', () => {
  const tool = new URL('./tool.js', import.meta.url).href;
  const script = `
    import { openSync } from 'node:fs';
    import { setTimeout as sleep } from 'node:timers/promises';
    const { IptablesTool } = await import('${tool}');
    for (let more = true; more; ) {
      try { openSync('/dev/null'); } catch { more = false; }
    }
    const options = { family: 'IPv4' };
    const outcome = await IptablesTool.open(options).then(() => 'opened', (error) => error.code + ' ' + error.message);
    await sleep(50);
    process.stdout.write(outcome);
  `;
  const { stdout, stderr, status } = spawnSync(
    'sh',
    ['-c', 'ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, script],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^IPTABLES_MISSING cannot run \S+: spawn \S+ EMFILE$/);
});
