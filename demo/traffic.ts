/** Starts the client and keeps its reports: who answered what was asked when. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Outcome, Report } from './client.js';
import { DemoError } from './errors.js';
import { startIn, type Sandbox } from './topology.js';

const reportShape: z.ZodType<Report> = z.object({
  outcomes: z.array(
    z.object({ startedAt: z.number(), pod: z.string().exactOptional(), error: z.string().exactOptional() }),
  ),
  completeUntil: z.number(),
});

export interface Tally {
  readonly answers: ReadonlyMap<string, number>;
  readonly answered: number;
  readonly failed: number;
  /** How often each error came, for example ECONNREFUSED. */
  readonly errors: ReadonlyMap<string, number>;
}

function increment(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

export function tallyOf(outcomes: Iterable<Outcome>): Tally {
  const answers = new Map<string, number>();
  const errors = new Map<string, number>();
  let answered = 0;
  let failed = 0;
  for (const { pod, error } of outcomes) {
    if (pod !== undefined) {
      increment(answers, pod);
      answered++;
    } else {
      increment(errors, error ?? 'unknown');
      failed++;
    }
  }
  return { answers, answered, failed, errors };
}

/**
 * Whether these counts could be a fair draw: none further from its share than chance allows. Six standard deviations of
 * the binomial distribution: an honest kernel misses that once in 500 million.
 */
export function isFair(tally: Tally, pods: readonly string[]): boolean {
  const share = 1 / pods.length;
  const deviation = Math.sqrt(tally.answered * share * (1 - share));
  return pods.every(
    (pod) => Math.abs((tally.answers.get(pod) ?? 0) - tally.answered * share) <= 6 * deviation,
  );
}

export class Traffic {
  private readonly outcomes: Outcome[] = [];
  private completeUntil = 0;

  /** @param fail called when the client ends by itself */
  constructor(client: Sandbox, url: string, fail: (error: DemoError) => void) {
    const child = startIn(client, 'client', [url]);
    child.on('message', (message) => {
      const report = reportShape.parse(message);
      this.outcomes.push(...report.outcomes);
      this.completeUntil = report.completeUntil;
    });
    child.once('exit', () => {
      fail(new DemoError('SETUP_FAILED', 'the client ended'));
    });
  }

  /** Requests that were started in a span of time; milliseconds since the epoch. */
  between(from: number, to: number): Tally {
    return tallyOf(this.outcomes.filter(({ startedAt }) => startedAt >= from && startedAt < to));
  }

  /** Waits until every request that was started before `time` has ended. */
  async settled(time: number): Promise<void> {
    while (this.completeUntil < time) await sleep(20);
  }
}
