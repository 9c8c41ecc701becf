/**
 * /healthz of the metrics server: it says that the server answers, and nothing about the proxy, as upstream's. Its only
 * check is 'ping'; each run is counted in the service level indicators.
 */
import type { Slis } from '../metrics/slis.js';
import { plain, type Answer, type Route } from './routes.js';

const check = 'ping';

export function pingRoutes(slis: Slis): Route[] {
  return [
    {
      path: '/healthz',
      listed: true,
      answer: ({ query }) => {
        const excluded = new Set(query.getAll('exclude'));
        const lines: string[] = [];
        if (excluded.delete(check)) {
          lines.push(`[+]${check} excluded: ok`);
        } else {
          slis.succeeded(check, 'healthz');
          lines.push(`[+]${check} ok`);
        }
        if (excluded.size > 0) {
          const names = [...excluded].sort().map((name) => JSON.stringify(name));
          lines.push(`warn: some health checks cannot be excluded: no matches for ${names.join(',')}`);
        }
        if (!query.has('verbose')) return ok('ok');
        return ok([...lines, 'healthz check passed', ''].join('\n'));
      },
    },
    { path: `/healthz/${check}`, listed: true, answer: () => ok('ok') },
  ];
}

function ok(body: string): Answer {
  return { status: 200, headers: plain, body };
}
