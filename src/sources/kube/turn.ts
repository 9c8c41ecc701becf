/**
 * A long list arrives faster than it is decoded: its chunks wait in memory, and a loop over them never lets go of the event loop.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';

const turnMs = 8;

export class Turn {
  private began = performance.now();

  /** Called after each piece of work: begins another turn of the event loop when this one has lasted long enough. */
  async end(): Promise<void> {
    if (performance.now() - this.began < turnMs) return;
    await nextTurn();
    this.began = performance.now();
  }
}
