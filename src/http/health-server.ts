/** The health server: /healthz and /livez (observability.md section 2). */
import type { RequestListener } from 'node:http';
import type { Health, HealthReport } from '../health/health.js';
import type { Metrics } from '../metrics/metrics.js';
import { json, serve, type Answer } from './routes.js';

export function healthServer(health: Health, metrics: Pick<Metrics, 'healthz' | 'livez'>): RequestListener {
  const counted = (counter: Metrics['healthz'], { status, body }: HealthReport): Answer => {
    counter.inc({ code: String(status) });
    return { status, headers: json, body };
  };
  return serve([
    { path: '/healthz', answer: () => counted(metrics.healthz, health.healthz()) },
    { path: '/livez', answer: () => counted(metrics.livez, health.livez()) },
  ]);
}
