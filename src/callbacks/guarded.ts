/**
 * Callbacks of timers, emitters and other sources of events have no caller that could catch what they throw: an
 * exception would end the process. guarded() catches it, rejected promises too, and reports it. A lint rule wants it wherever such a callback is
 * given (eslint.config.js).
 */

/** @param what is done in the callback, as a phrase: 'refresh node addresses' */
export type Reporter = (what: string, error: unknown) => void;

const printed: Reporter = (what, error) => {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`kube-proxy: ${what} failed: ${text.replaceAll('\n', ' ')}\n`);
};

let reporter: Reporter = printed;

/** From now on failures of callbacks are told to this one; undefined: to standard error. */
export function reportCallbackFailures(to: Reporter | undefined): void {
  reporter = to ?? printed;
}

/**
 * @param what as a phrase, for the report
 * @param onFailure called in the report's place: for callbacks that have to be tried again, or have their own way to tell
 */
export function guarded<A extends readonly unknown[]>(
  what: string,
  callback: (...args: A) => unknown,
  onFailure?: (error: unknown) => void,
): (...args: A) => void {
  const failed = (error: unknown): void => {
    try {
      if (onFailure === undefined) reporter(what, error);
      else onFailure(error);
    } catch {
      // What reports can fail as well: a full disk, a closed stream. The process goes on.
    }
  };
  return (...args) => {
    try {
      const result = callback(...args);
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  };
}
