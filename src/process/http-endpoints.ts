/** The two HTTP servers for operators: health (/healthz, /livez) and metrics (/metrics, /proxyMode, /healthz). */
import type { RequestListener } from 'node:http';
import type { Health, HealthReport } from '../health/health.js';
import { errorText } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';

const nosniff = { 'X-Content-Type-Options': 'nosniff' };
const plain = { 'Content-Type': 'text/plain; charset=utf-8', ...nosniff };

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const notFound: Answer = { status: 404, headers: plain, body: '404 page not found\n' };

function serve(answer: (path: string) => Answer | Promise<Answer>): RequestListener {
  return (request, response) => {
    request.resume();
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    const send = ({ status, headers, body }: Answer): void => {
      response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    };
    void Promise.resolve(answer(path)).then(send, (error: unknown) => {
      send({ status: 500, headers: plain, body: `${errorText(error)}\n` });
    });
  };
}

export function healthEndpoints(health: Health, metrics: Metrics): RequestListener {
  const report = ({ status, body }: HealthReport): Answer => ({
    status,
    headers: { 'Content-Type': 'application/json', ...nosniff },
    body,
  });
  return serve((path) => {
    if (path === '/healthz') {
      const answer = health.healthz();
      metrics.healthz.inc({ code: answer.status });
      return report(answer);
    }
    if (path === '/livez') {
      const answer = health.livez();
      metrics.livez.inc({ code: answer.status });
      return report(answer);
    }
    return notFound;
  });
}

export function metricsEndpoints(mode: string, metrics: Metrics): RequestListener {
  return serve(async (path) => {
    switch (path) {
      case '/metrics':
        return {
          status: 200,
          headers: { 'Content-Type': metrics.registry.contentType },
          body: await metrics.registry.metrics(),
        };
      case '/proxyMode':
        return { status: 200, headers: plain, body: mode };
      case '/healthz':
      case '/healthz/ping':
        return { status: 200, headers: plain, body: 'ok' };
      default:
        return notFound;
    }
  });
}
