/**
 * Lets a controller follow a signal that lives longer. AbortSignal.any() does the same, but in Node 20 the long-lived signal keeps
 * a trace of everything that ever followed it: a request every few seconds would be megabytes in a month.
 *
 * @returns ends it; to be called when the controller has done its work
 */
export function follow(signal: AbortSignal, controller: AbortController): () => void {
  const abort = (): void => {
    controller.abort(signal.reason);
  };
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort, { once: true });
  return () => {
    signal.removeEventListener('abort', abort);
  };
}
