/** The metrics server: what operators and scrapers ask (observability.md section 3). */
import type { RequestListener } from 'node:http';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Registry } from 'prom-client';
import { contentType, exposition } from '../metrics/exposition.js';
import type { Metrics } from '../metrics/metrics.js';
import { processStart } from '../metrics/process.js';
import type { Slis } from '../metrics/slis.js';
import { flagzRoute } from './flagz.js';
import { pingRoutes } from './ping.js';
import { profilingRoutes } from './profiling.js';
import { json, plain, serve, type Answer, type Question, type Route } from './routes.js';
import { statuszRoute, type ComponentVersion } from './statusz.js';
import { verbosityRoutes } from './verbosity.js';

export interface MetricsServerOptions {
  readonly metrics: Pick<Metrics, 'registry'>;
  readonly slis: Slis;
  /** The mode in force, and why: the reason is a header of /proxyMode. */
  readonly mode: () => { readonly mode: string; readonly reason: string };
  /** The configuration in force, as compact JSON; absent: the path is not served. */
  readonly configz?: () => string;
  /** Every command line flag with its value; absent (gate ComponentFlagz): not served. */
  readonly flagz?: () => ReadonlyMap<string, string>;
  /** Absent (gate ComponentStatusz): not served. */
  readonly statusz?: ComponentVersion;
  /** enableProfiling; absent: /debug is not served. */
  readonly profiling?: {
    /** @param verbosity a whole number, 0 or more */
    readonly setVerbosity: (verbosity: number) => void;
  };
}

const compress = promisify(gzip);

export function metricsServer(options: MetricsServerOptions): RequestListener {
  return serve(metricsRoutes(options));
}

/** In upstream's order. */
export function metricsRoutes(options: MetricsServerOptions): Route[] {
  const { metrics, slis, mode, configz, flagz, statusz, profiling } = options;
  const routes: Route[] = [
    ...pingRoutes(slis),
    {
      path: '/metrics/slis',
      listed: true,
      answer: (question) => {
        if (question.method !== 'DELETE') return scrape(slis.registry, question);
        slis.reset();
        return { status: 200, headers: plain, body: 'metrics reset\n' };
      },
    },
    {
      path: '/proxyMode',
      listed: true,
      answer: () => {
        const { mode: name, reason } = mode();
        // Headers are ASCII.
        const why = reason.replaceAll(/[^\x20-\x7e]/g, ' ').trim();
        return { status: 200, headers: { ...plain, 'X-Kube-Proxy-Mode-Reason': why }, body: name };
      },
    },
    { path: '/metrics', listed: true, answer: (question) => scrape(metrics.registry, question) },
  ];
  if (profiling !== undefined) {
    routes.push(...profilingRoutes(), ...verbosityRoutes(profiling.setVerbosity));
  }
  if (configz !== undefined) {
    routes.push({
      path: '/configz',
      listed: true,
      answer: () => ({ status: 200, headers: json, body: configz() }),
    });
  }
  if (flagz !== undefined) routes.push(flagzRoute(flagz));
  if (statusz !== undefined) {
    const listed = routes.filter((route) => route.listed === true).map(({ path }) => path);
    routes.push(statuszRoute(statusz, listed));
  }
  return routes;
}

async function scrape(registry: Registry, { headers }: Question): Promise<Answer> {
  const text = await exposition(registry);
  const answer = {
    status: 200,
    headers: {
      'Content-Type': contentType,
      'Process-Start-Time-Unix': String(Math.floor(processStart)),
    },
  };
  if (!acceptsGzip(headers['accept-encoding'])) return { ...answer, body: text };
  return {
    ...answer,
    headers: { ...answer.headers, 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' },
    body: await compress(text),
  };
}

function acceptsGzip(header: string | string[] | undefined): boolean {
  return String(header ?? '')
    .split(',')
    .some((part) => /^gzip(;q=(1(\.0*)?|0\.0*[1-9]\d*))?$/i.test(part.replaceAll(/\s/g, '')));
}
