/**
 * Long work in short turns of the event loop: the process has others to answer, and what arrives meanwhile has to be taken in, not to
 * wait in memory.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';

const turnMs = 8;

export class Turn {
  private began = performance.now();

  /** This turn of the event loop has lasted long enough. */
  get isOver(): boolean {
    return performance.now() - this.began >= turnMs;
  }

  /** Begins another one. */
  async next(): Promise<void> {
    await nextTurn();
    this.began = performance.now();
  }
}
