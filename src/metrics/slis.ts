/** Service level indicators of the component itself, on /metrics/slis: whether its health checks succeed. */
import { Catalogue } from './catalogue.js';
import { processStart } from './process.js';

export class Slis {
  private readonly catalogue = new Catalogue();
  private readonly check = this.catalogue.gauge({
    name: 'kubernetes_healthcheck',
    help: 'Result of the last run of a health check, 1: success',
    stability: 'STABLE',
    labels: ['name', 'type'],
  });
  private readonly checks = this.catalogue.counter({
    name: 'kubernetes_healthchecks_total',
    help: 'Runs of a health check by result',
    stability: 'STABLE',
    labels: ['name', 'type', 'status'],
  });
  private readonly start = this.catalogue.gauge({
    name: 'process_start_time_seconds',
    help: 'Unix time at which the process started',
    collect: (metric) => {
      metric.set(processStart);
    },
  });
  readonly registry = this.catalogue.registry;

  /** A health check of this name has run, e.g. 'ping' of /healthz. */
  succeeded(name: string, type: string): void {
    this.check.set({ name, type }, 1);
    this.checks.inc({ name, type, status: 'success' });
  }

  reset(): void {
    for (const metric of [this.check, this.checks, this.start]) metric.reset();
  }
}
