/**
 * Preloaded into the program (`node --import`): writes to the file EVENT_LOOP_REPORT, once a second, how long the longest turn
 * of the event loop was since the last line. It is processor time of the main thread between two ticks of a timer: what
 * others do with the machine does not count.
 */
import { appendFileSync } from 'node:fs';
import koffi from 'koffi';

/** A line of the report. */
export interface LongestTurn {
  /** Date.now() */
  readonly at: number;
  readonly milliseconds: number;
}

const tickMs = 1;
const reportMs = 500;
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
  let before = processorMs();
  let longest = 0;
  let written = Date.now();
  setInterval(() => {
    const now = processorMs();
    longest = Math.max(longest, now - before);
    const at = Date.now();
    if (at - written >= reportMs) {
      appendFileSync(path, `${JSON.stringify({ at, milliseconds: longest } satisfies LongestTurn)}\n`);
      longest = 0;
      written = at;
    }
    before = processorMs();
  }, tickMs).unref();
}
