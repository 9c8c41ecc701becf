/** Where the cluster's objects come from: the API server, or manifest files. */
import { setInterval as every } from 'node:timers';
import type { Config } from '../config/config.js';
import type { ClusterEvent } from '../kube/events.js';
import { KubeError, type KubeErrorCode } from '../kube/errors.js';
import type { ClusterSink, ResourceKind } from '../kube/objects.js';
import type { ApiServerSource } from '../kube/source.js';
import type { Logger } from '../log/logger.js';
import { exitCodes, FatalError } from './exit-codes.js';

export interface Source {
  /** @throws FatalError */
  start(): void;
  stop(): Promise<void>;
  /** Tells the cluster's users of something. Nobody listens where there is no API server. */
  record(event: ClusterEvent): void;
}

/**
 * @param fail called when the API server can't be used and waiting will not help, or did not help
 * @throws FatalError for credentials that can't be used
 */
export async function openSource(
  config: Config,
  sink: ClusterSink,
  log: Logger,
  fail: (error: FatalError) => void,
): Promise<Source> {
  return config.manifests === ''
    ? await apiSource(config, sink, log, fail)
    : await manifestSource(config, sink, log);
}

async function manifestSource(config: Config, sink: ClusterSink, log: Logger): Promise<Source> {
  const { ManifestSource } = await import('../manifests/source.js');
  const { ManifestError } = await import('../manifests/errors.js');
  const source = new ManifestSource(config.manifests, sink, log.named('manifests'), {
    nodeName: config.nodeName,
  });
  return {
    start: () => {
      try {
        source.start();
      } catch (error) {
        if (!(error instanceof ManifestError)) throw error;
        throw new FatalError(exitCodes.manifests, error.message, { cause: error });
      }
    },
    stop: () => {
      source.stop();
      return Promise.resolve();
    },
    record: () => undefined,
  };
}

/** What keeps us from the API server, by the exit code it ends with. */
const exitCodeOf: Readonly<Partial<Record<KubeErrorCode, number>>> = {
  KUBE_TLS_UNTRUSTED: exitCodes.apiCertificate,
  KUBE_TLS_EXPIRED: exitCodes.apiCertificate,
  KUBE_TLS_HOSTNAME: exitCodes.apiCertificate,
  KUBE_TLS_FAILED: exitCodes.apiCertificate,
  KUBE_UNAUTHORIZED: exitCodes.apiUnauthorized,
  KUBE_FORBIDDEN: exitCodes.apiUnauthorized,
  KUBE_CONFIG_MISSING: exitCodes.credentials,
  KUBE_CONFIG_UNREADABLE: exitCodes.credentials,
  KUBE_CONFIG_INVALID: exitCodes.credentials,
  KUBE_CONTEXT_MISSING: exitCodes.credentials,
  KUBE_CLUSTER_MISSING: exitCodes.credentials,
  KUBE_USER_MISSING: exitCodes.credentials,
  KUBE_CREDENTIAL_FILE: exitCodes.credentials,
  KUBE_EXEC_PLUGIN: exitCodes.credentials,
  KUBE_AUTH_UNSUPPORTED: exitCodes.credentials,
  KUBE_NOT_IN_CLUSTER: exitCodes.credentials,
  KUBE_SERVER_URL: exitCodes.credentials,
};

/** At the start, these do not get better by waiting: the operator has to act. */
const hopeless = new Set<number>([
  exitCodes.apiCertificate,
  exitCodes.apiUnauthorized,
  exitCodes.credentials,
]);

/** Everything the first sync waits for. */
const essential: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node'];

const checkMs = 200;

async function apiSource(
  config: Config,
  sink: ClusterSink,
  log: Logger,
  fail: (error: FatalError) => void,
): Promise<Source> {
  const { loadCredentials } = await import('../kube/credentials.js');
  const { ApiServerSource } = await import('../kube/source.js');
  let source: ApiServerSource;
  try {
    const connection = await loadCredentials(config.client, log);
    const { client, nodeName } = config;
    source = new ApiServerSource(
      { connection, contentType: client.contentType, nodeName },
      sink,
      log.named('api'),
    );
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new FatalError(exitCodeOf[error.code] ?? exitCodes.failure, error.message, { cause: error });
  }
  const stopWatching = { now: (): void => undefined };
  return {
    start: () => {
      source.start();
      stopWatching.now = watchStart(source, config.startupTimeoutMs, fail);
    },
    stop: async () => {
      stopWatching.now();
      await source.stop();
    },
    record: (event) => {
      source.record(event);
    },
  };
}

/**
 * Until everything has been listed once, an API server that refuses us ends the process, with a code that tells why:
 * whatever restarts it shows that to the operator. Afterwards nothing the API server does ends the process.
 */
function watchStart(
  source: ApiServerSource,
  timeoutMs: number,
  fail: (error: FatalError) => void,
): () => void {
  const started = Date.now();
  const timer = every(() => {
    const status = source.status();
    const waiting = essential.filter((kind) => status[kind]?.synced !== true);
    if (waiting.length === 0) {
      clearInterval(timer);
      return;
    }
    const error = waiting.map((kind) => status[kind]?.lastError).find((failure) => failure !== undefined);
    if (error === undefined) return;
    const code =
      error instanceof KubeError ? (exitCodeOf[error.code] ?? exitCodes.apiUnreachable) : exitCodes.failure;
    const waited = Date.now() - started;
    if (hopeless.has(code)) {
      clearInterval(timer);
      fail(new FatalError(code, error.message, { cause: error }));
    } else if (timeoutMs > 0 && waited >= timeoutMs) {
      clearInterval(timer);
      const seconds = Math.round(waited / 1000);
      fail(
        new FatalError(code, `gave up after ${seconds} s (--startup-timeout): ${error.message}`, {
          cause: error,
        }),
      );
    }
  }, checkMs);
  return () => {
    clearInterval(timer);
  };
}
