import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { ServicePort } from '../../../model/types.js';
import { AbilityTrials } from './abilities.js';
import { IptablesError } from './errors.js';
import type { IptablesTool } from './tool.js';

/** A machine without xt_recent until `has()`. */
function machine(t: TestContext) {
  let present = false;
  let now = 1000;
  let runs = 0;
  t.mock.method(performance, 'now', () => now);
  const restore = (input: string): Promise<void> => {
    if (!input.includes('-m recent')) return Promise.resolve();
    runs++;
    return present
      ? Promise.resolve()
      : Promise.reject(new IptablesError('IPTABLES_REJECTED', 'Extension recent is not supported'));
  };
  const tool = { description: 'iptables 1.8.9 (nf_tables)', restore } as unknown as IptablesTool;
  const trials = new AbilityTrials(tool);
  const affine = { affinitySeconds: 10, protocol: 'TCP' } as unknown as ServicePort;
  return {
    lacking: () => trials.lacking(affine),
    runs: () => runs,
    after: (ms: number) => (now += ms),
    has: () => (present = true),
  };
}

test('a missing match is tried once for all Services that need it, and again at the next retry', async (t) => {
  const { lacking, runs, after, has } = machine(t);
  for (let i = 0; i < 600; i++) assert.match((await lacking())?.message ?? '', /module xt_recent/);
  assert.equal(runs(), 1);
  after(30_000);
  has();
  assert.equal(await lacking(), undefined);
  assert.equal(await lacking(), undefined);
  assert.equal(runs(), 2);
});
