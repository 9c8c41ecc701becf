/**
 * Sequences of faults with the kernel behind them: after every transaction the table is read and compared with what the
 * model wants, and what lasts has to be in it; in the end a fresh process finds nothing to write.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NftablesFamily } from '../../src/backends/nftables/family.js';
import { readLines, desiredLines } from '../../src/backends/nftables/testing/table-text.js';
import type { ModelChanges, ServicePort } from '../../src/model/types.js';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { drain } from '../proof/drain.js';
import { lasting } from './cluster.js';
import { runSequence } from './sequence.js';
import { inMemory } from './settings.js';

const skip = enterNetworkNamespace();
const first = 2001;
const count = 20;

/** The IPv4 half of a node, programmed change by change. */
class Kernel {
  readonly problems: string[] = [];
  transactions = 0;
  private readonly eye = NftablesConnection.open();
  private readonly ports = new Map<string, ServicePort>();
  private dataplane = this.open();
  private resynced = false;
  private work: Promise<void> = Promise.resolve();

  private open(): NftablesFamily {
    return new NftablesFamily(NftablesConnection.open(), {
      family: 'IPv4',
      masqueradeMark: 0x4000,
      masqueradeAll: false,
      detector: undefined,
      nodePortAddresses: 'all',
    });
  }

  take(changes: ModelChanges): void {
    const own = changes.families.find(({ family }) => family === 'IPv4');
    if (own === undefined) return;
    this.work = this.work.then(async () => {
      for (const key of own.removed) this.ports.delete(key);
      for (const port of own.upserted) this.ports.set(port.key, port);
      const report = this.resynced
        ? await this.dataplane.apply(own)
        : await this.dataplane.resync(this.ports.values());
      this.resynced = true;
      this.transactions += report.transactions;
      await drain(this.dataplane);
      this.look();
    });
  }

  private look(): void {
    const lines = readLines(this.eye, 'IPv4');
    const wanted = desiredLines(this.ports.values(), {});
    if (lines.join('\n') !== wanted.join('\n')) {
      this.problems.push(`the kernel holds\n${lines.join('\n')}\nand not\n${wanted.join('\n')}`);
    }
    for (const { clusterIP, port, endpoint } of lasting) {
      const own = lines.filter((line) => line.startsWith(`${clusterIP} ${port}/TCP: `));
      const serves =
        own.some((line) => line.includes(': class ')) &&
        own.some((line) => line.includes(`${endpoint} 9000`));
      if (!serves) this.problems.push(`${clusterIP} is missing in the kernel: ${own.join('; ')}`);
    }
  }

  /** A new process takes over: there must be nothing to do. */
  async settle(): Promise<readonly string[]> {
    await this.work;
    this.dataplane.close();
    this.dataplane = this.open();
    const { elementsAdded, elementsDeleted } = await this.dataplane.resync(this.ports.values());
    if (elementsAdded + elementsDeleted > 0) {
      this.problems.push(`a fresh start adds ${elementsAdded} and deletes ${elementsDeleted} elements`);
    }
    return this.problems;
  }

  close(): void {
    this.dataplane.close();
    this.eye.close();
  }
}

test(`${count} sequences of faults, seen in the kernel`, { skip }, async () => {
  let transactions = 0;
  for (let seed = first; seed < first + count; seed++) {
    const kernel = new Kernel();
    try {
      const outcome = await inMemory(new Random(~seed), (setting) =>
        runSequence(seed, {
          setting,
          program: (changes) => {
            kernel.take(changes);
          },
          settle: () => kernel.settle(),
        }),
      );
      assert.deepEqual(outcome.violations, [], [`seed ${seed}`, ...outcome.story].join('\n'));
      transactions += kernel.transactions;
    } finally {
      kernel.close();
    }
  }
  assert.ok(transactions > 3 * count, `only ${transactions} transactions`);
});
