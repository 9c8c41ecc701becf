/** /debug/flags: the one flag that can be changed while the program runs, the verbosity of the log. */
import { errorText } from '../log/logger.js';
import { html, plain, type Answer, type Route } from './routes.js';

/** klog counts in 32 bits. */
const max = 2 ** 31 - 1;
/** More is no number. */
const maxBytes = 64;

export function verbosityRoutes(setVerbosity: (verbosity: number) => void): Route[] {
  const index: Answer = {
    status: 200,
    headers: html,
    body: `<!DOCTYPE html><title>/debug/flags/</title><h1>/debug/flags/</h1>
<ul><li><a href="/debug/flags/v">v</a>: verbosity of the log. PUT a number, as in
<code>curl -X PUT -d 4 http://localhost:10249/debug/flags/v</code></ul>
`,
  };
  return [
    { path: '/debug/flags', answer: () => index },
    { path: '/debug/flags/', prefix: true, answer: () => index },
    {
      path: '/debug/flags/v',
      answer: async ({ method, read }) => {
        if (method !== 'PUT') return text(406, 'unsupported http method');
        let body: string;
        try {
          body = await read(maxBytes);
        } catch (error) {
          return text(400, errorText(error));
        }
        const value = Number(body);
        if (!/^\d+$/.test(body) || value > max)
          return text(
            400,
            `failed to set klog.logging.verbosity ${JSON.stringify(body)}: not a number from 0 to ${max}`,
          );
        setVerbosity(value);
        return text(200, `successfully set klog.logging.verbosity to ${value}`);
      },
    },
  ];
}

function text(status: number, line: string): Answer {
  return { status, headers: { ...plain, 'Content-Type': 'text/plain' }, body: `${line}\n` };
}
