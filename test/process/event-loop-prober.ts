/**
 * Preloaded into the program (`node --import`): writes to the file EVENT_LOOP_REPORT, once a second, how long the longest turn
 * of the event loop was since the last line. It is processor time of the main thread between two ticks of a timer: time that others
 * have the processor for does not count. How fast the processor is, is told by the time that it needs for a unit of work, always the same.
 */
import { appendFileSync } from 'node:fs';
import koffi from 'koffi';

/** A line of the report. */
export interface LongestTurn {
  /** Date.now() */
  readonly at: number;
  readonly milliseconds: number;
  /** Processor time of the unit of work at that time: about 1 ms on a processor of 2023. */
  readonly unitMs: number;
}

const tickMs = 1;
const reportMs = 500;
const unitSteps = 60_000;
/** Of the unit's table, a power of two: 256 KiB. */
const words = 1 << 16;
/** <linux/time.h> */
const CLOCK_THREAD_CPUTIME_ID = 3;

const report = process.env['EVENT_LOOP_REPORT'];
if (report !== undefined) probe(report);

function probe(path: string): void {
  koffi.struct('timespec', { tv_sec: 'int64', tv_nsec: 'int64' });
  const clock = koffi.load('libc.so.6').func('int clock_gettime(int id, _Out_ timespec *time)');
  const time: { tv_sec: number | bigint; tv_nsec: number | bigint } = { tv_sec: 0, tv_nsec: 0 };
  const processorMs = (): number => {
    clock(CLOCK_THREAD_CPUTIME_ID, time);
    return Number(time.tv_sec) * 1e3 + Number(time.tv_nsec) / 1e6;
  };
  const table = Uint32Array.from({ length: words }, (_, i) => Math.imul(i, 2654435761) >>> 9);
  let place = 0;
  /** Arithmetic and memory, without garbage. */
  const unit = (): void => {
    for (let step = 0; step < unitSteps; step++) {
      let sum = step;
      for (let i = 0; i < 8; i++) sum = Math.imul(sum ^ place, 16777619) | 0;
      place = ((table[place] ?? 0) + sum) & (words - 1);
    }
  };
  // Until it has been compiled.
  for (let i = 0; i < 50; i++) unit();
  let before = processorMs();
  let longest = 0;
  let written = Date.now();
  setInterval(() => {
    const now = processorMs();
    longest = Math.max(longest, now - before);
    const at = Date.now();
    if (at - written >= reportMs) {
      // Nothing of it is in the caches at first.
      unit();
      const start = processorMs();
      unit();
      const turn: LongestTurn = { at, milliseconds: longest, unitMs: processorMs() - start };
      appendFileSync(path, `${JSON.stringify(turn)}\n`);
      longest = 0;
      written = at;
    }
    before = processorMs();
  }, tickMs).unref();
}
