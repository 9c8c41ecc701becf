/**
 * Requests to the API server under the names of client-go's metrics. `host` is 'host:port' of the server; `verb` and
 * `method` are both the HTTP method, as in client-go.
 */
import { exponentialBuckets, type Catalogue } from './catalogue.js';

const durationBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];
const sizeBuckets = [64, 256, 512, ...exponentialBuckets(1024, 4, 8)];
/** Ten minutes to four years. */
const rotationBuckets = [
  600, 1800, 3600, 14_400, 86_400, 604_800, 2_592_000, 7_776_000, 15_552_000, 31_104_000, 124_416_000,
];

/** One request as far as it is known when its answer begins, or when it fails. */
export interface RequestAnswered {
  readonly method: string;
  readonly host: string;
  /** HTTP status; undefined: no answer came. */
  readonly status: number | undefined;
  /** Until the headers of the answer, or the failure. */
  readonly seconds: number;
  /** Of the body sent; 0: none. */
  readonly requestBytes: number;
}

/** The body of an answer has been received completely. Bodies of watches are not told. */
export interface BodyReceived {
  readonly method: string;
  readonly host: string;
  readonly bytes: number;
}

/** How long a request was in line for the rate limit. */
export interface RequestWaited {
  readonly method: string;
  readonly host: string;
  readonly seconds: number;
}

export interface RestClientMetrics {
  readonly waited: (request: RequestWaited) => void;
  readonly answered: (request: RequestAnswered) => void;
  readonly received: (body: BodyReceived) => void;
  /** A request is sent once more by the client itself, without its user knowing. */
  readonly retried: (request: { readonly method: string; readonly host: string }) => void;
  /** A credential plugin has ended. */
  readonly pluginCalled: (outcome: PluginOutcome) => void;
}

/** Label call_status of client-go. */
export type PluginOutcome = 'no_error' | 'plugin_execution_error' | 'plugin_not_found_error';

export function defineRestClientMetrics(catalogue: Catalogue): RestClientMetrics {
  const labels = ['verb', 'host'] as const;
  const duration = catalogue.histogram({
    name: 'rest_client_request_duration_seconds',
    help: 'Seconds until the API server began to answer a request',
    labels,
    buckets: durationBuckets,
  });
  const limiter = catalogue.histogram({
    name: 'rest_client_rate_limiter_duration_seconds',
    help: 'Time that requests waited for the rate limit (clientConnection.qps and burst)',
    labels,
    buckets: durationBuckets,
  });
  const requestSize = catalogue.histogram({
    name: 'rest_client_request_size_bytes',
    help: 'Size of the bodies sent to the API server',
    labels,
    buckets: sizeBuckets,
  });
  const responseSize = catalogue.histogram({
    name: 'rest_client_response_size_bytes',
    help: 'Size of the bodies of answers that are not watches',
    labels,
    buckets: sizeBuckets,
  });
  const requests = catalogue.counter({
    name: 'rest_client_requests_total',
    help: 'Requests to the API server by status code; <error>: no answer came',
    labels: ['code', 'method', 'host'],
  });
  const retries = catalogue.counter({
    name: 'rest_client_request_retries_total',
    help: 'Number of requests retried because the connection closed',
    labels: ['code', 'verb', 'host'],
  });
  defineMechanics(catalogue);
  let pluginUsed = false;
  const calls = catalogue.counter({
    name: 'rest_client_exec_plugin_call_total',
    help: 'Calls of the credential plugin of the kubeconfig, by outcome',
    labels: ['code', 'call_status'],
  });
  catalogue.gauge({
    name: 'rest_client_exec_plugin_ttl_seconds',
    help: 'Time until the credentials of a plugin expire; +Inf: there is no plugin',
    collect: (metric) => {
      // The library keeps to itself when the credentials of a plugin end.
      metric.set(pluginUsed ? NaN : Infinity);
    },
  });
  catalogue.histogram({
    name: 'rest_client_exec_plugin_certificate_rotation_age',
    help: 'Age of the certificates of a plugin when they were replaced, in seconds',
    buckets: rotationBuckets,
  });
  return {
    waited: ({ method, host, seconds }) => {
      limiter.observe({ verb: method, host }, seconds);
    },
    answered: ({ method, host, status, seconds, requestBytes }) => {
      requests.inc({ code: status === undefined ? '<error>' : String(status), method, host });
      duration.observe({ verb: method, host }, seconds);
      if (requestBytes > 0) requestSize.observe({ verb: method, host }, requestBytes);
    },
    received: ({ method, host, bytes }) => {
      responseSize.observe({ verb: method, host }, bytes);
    },
    retried: ({ method, host }) => {
      retries.inc({ code: '<error>', verb: method, host });
    },
    pluginCalled: (outcome) => {
      pluginUsed = true;
      calls.inc({ code: outcome === 'no_error' ? '0' : '1', call_status: outcome });
    },
  };
}

/**
 * How client-go keeps its transports. There is one transport here, and no cache that could be cleaned up. Registered all
 * the same, so that a query finds what it asks for.
 */
function defineMechanics(catalogue: Catalogue): void {
  catalogue.gauge({
    name: 'rest_client_transport_cache_entries',
    help: 'Transports to API servers',
    collect: (metric) => {
      metric.set(1);
    },
  });
  catalogue
    .counter({
      name: 'rest_client_transport_create_calls_total',
      help: 'Transports asked for, by what became of it',
      labels: ['result'],
      zero: [{ result: 'hit' }, { result: 'uncacheable' }],
    })
    .inc({ result: 'miss' });
  catalogue.counter({
    name: 'rest_client_transport_ca_reload_total',
    help: 'Reloads of a changed certificate authority; it is read for each connection instead',
    labels: ['result', 'reason'],
  });
  catalogue.counter({
    name: 'rest_client_transport_cert_rotation_gc_calls_total',
    help: 'Rotated client certificates thrown away with their transport',
  });
  catalogue.counter({
    name: 'rest_client_transport_cache_gc_calls_total',
    help: 'Transports looked at to be thrown away',
    labels: ['result'],
    zero: [{ result: 'deleted' }, { result: 'skipped' }],
  });
}
