/** Runs tests in one or more labs and collects their results. */
import type { Test } from './cases.js';
import type { LabOptions } from './lab.js';
import { Lab } from './lab.js';
import type { Group } from './schedule.js';
import { batches } from './schedule.js';
import type { Expectations } from './row-run.js';
import { RowRun } from './row-run.js';

export interface Result {
  readonly test: Test;
  /** undefined: passed. */
  readonly problem: string | undefined;
  readonly notes: readonly string[];
}

export interface RunOptions extends Omit<LabOptions, 'job'> {
  readonly jobs: number;
  readonly expectations: Expectations;
  readonly onResult: (result: Result) => void;
  readonly verbose: (line: string) => void;
}

/** How many tests of a batch send packets at the same time. */
const width = 8;

/** The labs that exist, for a runner that is interrupted. */
const labs = new Set<Lab>();

export async function destroyLabs(): Promise<void> {
  await Promise.all([...labs].map((lab) => lab.destroy().catch(() => undefined)));
  labs.clear();
}

export async function runGroups(groups: readonly Group[], options: RunOptions): Promise<void> {
  // The largest groups first: the last job to end then ends soonest.
  const queue = [...groups].sort((a, b) => b.tests.length - a.tests.length);
  const work = async (job: number): Promise<void> => {
    const lab = await Lab.build({ ...options, job });
    labs.add(lab);
    try {
      for (let group = queue.shift(); group !== undefined; group = queue.shift()) {
        await runGroup(lab, group, options);
      }
    } finally {
      labs.delete(lab);
      await lab.destroy();
    }
  };
  const jobs = Math.max(1, Math.min(options.jobs, queue.length));
  await Promise.all(Array.from({ length: jobs }, (_, job) => work(job)));
}

async function runGroup(lab: Lab, group: Group, options: RunOptions): Promise<void> {
  for (const batch of batches(group.tests)) {
    const started = Date.now();
    const done = new Set<Test>();
    const report = (test: Test, problem: string | undefined, notes: readonly string[] = []): void => {
      if (done.has(test)) return;
      done.add(test);
      options.onResult({ test, problem, notes });
    };
    try {
      await lab.configure(batch[0]!.proxy, batch[0]!.cluster);
      await runBatch(lab, batch, options.expectations, report);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      for (const test of batch) report(test, message);
      // Whatever state this is: the next batch starts afresh.
      await lab.tearDownProxy().catch(() => undefined);
    }
    options.verbose(`${batch.map(({ id }) => id).join(', ')}: ${Date.now() - started} ms`);
  }
}

async function runBatch(
  lab: Lab,
  batch: readonly Test[],
  expectations: Expectations,
  report: (test: Test, problem: string | undefined, notes: readonly string[]) => void,
): Promise<void> {
  const runs = batch.map((test) => ({ test, run: new RowRun(lab, test, expectations) }));
  try {
    for (const { run } of runs) await run.prepare();
    await lab.topology.forgetConnections();
    await lab.sync();
    const queue = [...runs];
    const lane = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const { test, run } = next;
        const problem = await run.steps().then(
          () => undefined,
          (error: unknown) => (error instanceof Error ? error.message : String(error)),
        );
        report(test, problem, run.notes);
      }
    };
    await Promise.all(Array.from({ length: width }, lane));
  } finally {
    for (const { run } of runs) await run.cleanUp();
    await lab.restore(batch[0]!.cluster);
  }
}
