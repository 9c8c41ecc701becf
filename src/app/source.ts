/** Where the cluster's objects come from: the API server, or manifest files. */
import { setInterval as every } from 'node:timers';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import type { PluginOutcome } from '../sources/kube/auth/credentials.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import { KubeError } from '../sources/kube/errors.js';
import type { SourceHealth } from '../sources/source-health.js';
import type { ClientObserver } from '../sources/kube/client/client.js';
import type { ClusterSink, ResourceKind } from '../sources/objects.js';
import type { ApiServerSource, ObjectIdentity } from '../sources/kube/source.js';
import type { Logger } from '../log/logger.js';
import type { StateFile } from '../sources/state/state-file.js';
import { guarded } from '../callbacks/guarded.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import { exitCodeFor, StartPatience } from './start-patience.js';
import { version } from '../version/version.js';

export interface Source {
  /** @throws FatalError */
  start(): void;
  stop(): Promise<void>;
  /** Tells the cluster's users of something. Nobody listens where there is no API server. */
  record(event: ClusterEvent): void;
  /** Whether what was delivered is what the cluster wants now. */
  health(): SourceHealth;
}

/** Told of requests to the API server, and of the plugin that yields the credentials. */
export interface RequestObserver extends ClientObserver {
  readonly pluginCalled: (outcome: PluginOutcome) => void;
}

export interface SourceObserver {
  readonly client: RequestObserver;
  /** An object can't be read, and why; undefined: it can again, or is gone. */
  readonly unreadable: (object: ObjectIdentity, why: string | undefined) => void;
  /** A list is not believed for now: it lacks so many of the objects that are held. */
  readonly unconfirmed: (kind: ResourceKind, missing: number, held: number) => void;
}

/**
 * @param observer for metrics and events
 * @param fail called when the API server can't be used and waiting will not help, or did not help
 * @throws FatalError for credentials that can't be used
 */
export async function openSource(
  config: Config,
  sink: ClusterSink,
  log: Logger,
  fail: (error: FatalError) => void,
  observer: SourceObserver,
): Promise<Source> {
  return config.manifests === ''
    ? await apiSource(config, sink, log, fail, observer)
    : await manifestSource(config, sink, log);
}

async function manifestSource(config: Config, sink: ClusterSink, log: Logger): Promise<Source> {
  const { ManifestSource } = await import('../sources/manifests/source.js');
  const { ManifestError } = await import('../sources/manifests/errors.js');
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
    // Files are what they are.
    health: () => ({
      state: 'current',
      staleSince: undefined,
      reason: '',
      lastContact: Date.now(),
      fromStateFile: false,
      kinds: {},
    }),
  };
}

/** Everything the first sync waits for. */
const essential: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node'];

const checkMs = 200;
/** An API server that has not shown everything by then, and did not fail either, is taken for away. */
const listPatienceMs = 3000;

async function apiSource(
  config: Config,
  sink: ClusterSink,
  log: Logger,
  fail: (error: FatalError) => void,
  observer: SourceObserver,
): Promise<Source> {
  const { loadCredentials } = await import('../sources/kube/auth/credentials.js');
  const { ApiServerSource } = await import('../sources/kube/source.js');
  const { userAgent } = await import('../sources/kube/auth/user-agent.js');
  const { client, nodeName } = config;
  let source: ApiServerSource;
  let stateFile: StateFile | undefined;
  try {
    const connection = await loadCredentials({ ...client, onPlugin: observer.client.pluginCalled }, log);
    stateFile = await openStateFile(config, connection.server.origin, log);
    source = new ApiServerSource(
      {
        connection,
        contentType: client.contentType,
        acceptContentTypes: client.acceptContentTypes,
        streamingLists: config.gates.WatchListClient,
        rateLimit: { qps: client.qps, burst: client.burst },
        userAgent: userAgent(version),
        nodeName,
        observer: observer.client,
        onUnreadable: observer.unreadable,
        onUnconfirmedList: observer.unconfirmed,
      },
      stateFile?.sink(sink) ?? sink,
      log.named('api'),
    );
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new FatalError(exitCodeFor(error, exitCodes.failure), error.message, { cause: error });
  }
  stateFile?.proveWith(() => source.health().staleSince ?? Date.now());
  const stopWatching = { now: (): void => undefined };
  return {
    start: () => {
      source.start();
      stopWatching.now = watchStart(source, stateFile, config.startupTimeoutMs, fail);
    },
    stop: async () => {
      stopWatching.now();
      await source.stop();
      await stateFile?.close();
    },
    record: (event) => {
      source.record(event);
    },
    health: () => {
      const health = source.health();
      const since = stateFile?.staleSince;
      if (since === undefined) return health;
      const reason = `serving the state file of ${new Date(since).toISOString()}: ${health.reason}`;
      return { ...health, state: 'stale', staleSince: since, reason, fromStateFile: true };
    },
  };
}

async function openStateFile(config: Config, server: string, log: Logger): Promise<StateFile | undefined> {
  if (config.stateFile === '') return undefined;
  const { StateFile } = await import('../sources/state/state-file.js');
  return await StateFile.load({
    path: config.stateFile,
    node: config.nodeName,
    server,
    program: version,
    log: log.named('state'),
  });
}

/**
 * Until everything has been listed once, an API server that refuses us ends the process, with a code that tells why:
 * whatever restarts it shows that to the operator. Afterwards nothing the API server does ends the process.
 *
 * With a state of an earlier process at hand nothing does either: it is served as soon as the API server fails or hesitates.
 * Not sooner, because the kernel's rules may be newer than the file.
 */
function watchStart(
  source: ApiServerSource,
  stateFile: StateFile | undefined,
  timeoutMs: number,
  fail: (error: FatalError) => void,
): () => void {
  const started = performance.now();
  const patience = new StartPatience(timeoutMs);
  let serving = false;
  let hasState = stateFile?.storedAt !== undefined;
  const timer = every(
    guarded('watch the start', () => {
      const status = source.status();
      const waiting = essential.filter((kind) => status[kind]?.synced !== true);
      if (waiting.length === 0) {
        clearInterval(timer);
        return;
      }
      const error = waiting.map((kind) => status[kind]?.lastError).find((failure) => failure !== undefined);
      if (hasState) {
        if (serving || (error === undefined && performance.now() - started < listPatienceMs)) return;
        serving = true;
        void stateFile?.serve().then((served) => {
          hasState = served;
        });
        return;
      }
      const end = patience.judge(error);
      if (end === undefined) return;
      clearInterval(timer);
      fail(end);
    }),
    checkMs,
  );
  return () => {
    clearInterval(timer);
  };
}

/** How long the process stays for the sake of an event that says why it ends. */
const lastWordsMs = 3_000;

/** Tells the cluster's users why the process ends, where there is an API server that can be reached. */
export async function reportFatalError(config: Config, log: Logger, event: ClusterEvent): Promise<void> {
  if (config.manifests !== '') return;
  const { loadCredentials } = await import('../sources/kube/auth/credentials.js');
  const { ApiClient } = await import('../sources/kube/client/client.js');
  const { EventRecorder } = await import('../sources/kube/events.js');
  const { userAgent } = await import('../sources/kube/auth/user-agent.js');
  try {
    const credentials = await loadCredentials(config.client, log);
    const client = new ApiClient(credentials, { userAgent: userAgent(version) });
    const recorder = new EventRecorder(client, config.nodeName, log.named('api'));
    await Promise.race([recorder.deliver(event), sleep(lastWordsMs, undefined, { ref: false })]);
    recorder.close();
    client.close();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    log.debug(4, 'Failed to send event', { reason: event.reason, err: error.message });
  }
}
