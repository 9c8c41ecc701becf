/** Some seconds of `make flows`: no new flow passes by its Service, and none is refused, while Services change. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { missingTool } from '../../src/backends/iptables/testing/tools.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { runFlows, type Mode } from './run.js';

const skip = enterNetworkNamespace();
const missing: Readonly<Record<Mode, string | false>> = {
  nftables: false,
  iptables: missingTool('nf_tables'),
};

describe('new flows while Services change', { skip }, () => {
  for (const mode of ['nftables', 'iptables'] as const) {
    test(`mode ${mode}`, { skip: missing[mode] }, async (t) => {
      const result = await runFlows({
        mode,
        seed: 7,
        flows: Infinity,
        shrinks: 0,
        moves: 0,
        seconds: 5,
        pauseMs: 10,
      });
      t.diagnostic(JSON.stringify(result));
      assert.ok(result.flows > 1000 && result.changes > 5, 'hardly anything was tried');
      // Some are still on their way when the counters are read.
      assert.ok(result.translated > result.flows * 0.9, 'flows have got lost');
      const { untranslated, refused, entries } = result;
      assert.deepEqual({ untranslated, refused, entries }, { untranslated: 0, refused: 0, entries: 0 });
    });
  }
});
