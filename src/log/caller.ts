/** Where in the source a line is logged. */

export interface Caller {
  /** Name of the source file, such as `sync-loop.js`. */
  readonly file: string;
  /** The folder it is in. */
  readonly folder: string;
  readonly line: number;
}

const unknown: Caller = { file: 'unknown', folder: '', line: 1 };

/** @param logged the function that was called: its caller is looked for */
export function callerOf(logged: (...args: never[]) => void): Caller {
  const limit = Error.stackTraceLimit;
  // One frame is all that is needed, and most of what a stack costs.
  Error.stackTraceLimit = 1;
  const holder: { stack?: string } = {};
  Error.captureStackTrace(holder, logged);
  Error.stackTraceLimit = limit;
  const [, folder = '', file, line] =
    /(?:([^/\\(]*)[/\\])?([^/\\:(]+):(\d+):\d+\)?$/.exec(holder.stack ?? '') ?? [];
  return file === undefined ? unknown : { file, folder, line: Number(line) };
}
