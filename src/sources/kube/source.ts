/** The cluster as the API server tells it: one reflector per kind, one client for all of them. */
import type { Logger } from '../../log/logger.js';
import type { ApiCredentials } from './auth/credentials.js';
import { sourceHealth, type SourceHealth } from '../source-health.js';
import {
  ApiClient,
  type ApiClientOptions,
  type ClientObserver,
  type ClientTimeouts,
} from './client/client.js';
import type { RateLimit } from './client/rate-limit.js';
import { KubeError } from './errors.js';
import { EventRecorder, type ClusterEvent } from './events.js';
import type { ClusterSink, ResourceKind } from '../objects.js';
import {
  defaultReflectorTimings,
  Reflector,
  type ReflectorSink,
  type ReflectorStatus,
  type ReflectorTimings,
} from './reflector/reflector.js';
import {
  acceptedTypes,
  endpointSlices,
  ownNode,
  serviceCIDRs,
  services,
  type ContentType,
  type Resource,
} from './resources.js';
import { defaultServerTimings, ServerState, type ServerTimings } from './reflector/server.js';
import { StringTable } from '../strings.js';

export interface ApiSourceOptions {
  /** From loadCredentials(). */
  readonly connection: ApiCredentials;
  /** Which Node object is ours. */
  readonly nodeName: string;
  /** All four when absent. */
  readonly kinds?: readonly ResourceKind[];
  /** Objects per page of a plain list; 500 when absent. */
  readonly pageSize?: number;
  /** What to ask for first; 'protobuf' when absent. The answer may be the other one. */
  readonly contentType?: ContentType;
  /** clientConnection.acceptContentTypes: what may be answered, instead of that; '' or absent: not set. */
  readonly acceptContentTypes?: string;
  /** Ask for streaming lists first (feature gate WatchListClient); true when absent. */
  readonly streamingLists?: boolean;
  /** Let the server compress lists; true when absent. */
  readonly gzip?: boolean;
  /** 'kube-proxy-ts' when absent. */
  readonly userAgent?: string;
  /** clientConnection.qps and .burst, for all requests together; none when absent. */
  readonly rateLimit?: RateLimit;
  /** How long until renewed certificates are noticed; one minute when absent. */
  readonly rereadMs?: number;
  /** Told of requests, for metrics. */
  readonly observer?: ClientObserver;
  /** Told of each object that can't be read, and why; undefined: it can again, or is gone. */
  readonly onUnreadable?: (object: ObjectIdentity, why: string | undefined) => void;
  /** A list is not believed for now: after the server's history changed it takes `missing` of `held` objects away. */
  readonly onUnconfirmedList?: (kind: ResourceKind, missing: number, held: number) => void;
  /** How connections are made; over the network when absent. */
  readonly dial?: NonNullable<ApiClientOptions['dial']>;
  readonly timeouts?: Partial<ClientTimeouts>;
  readonly timings?: Partial<ReflectorTimings>;
  readonly serverTimings?: Partial<ServerTimings>;
}

export interface ObjectIdentity {
  readonly kind: ResourceKind;
  /** '' for kinds without one. */
  readonly namespace: string;
  readonly name: string;
  /** '' when unknown. */
  readonly uid: string;
}

export type SourceStatus = Readonly<Partial<Record<ResourceKind, ReflectorStatus>>>;

interface Running {
  readonly kind: ResourceKind;
  readonly status: ReflectorStatus;
  start(): void;
  stop(): Promise<void>;
}

export class ApiServerSource {
  private readonly client: ApiClient;
  private readonly reflectors: readonly Running[];
  private readonly events: EventRecorder;

  constructor(options: ApiSourceOptions, sink: ClusterSink, log: Logger) {
    const { rateLimit, rereadMs, observer, dial, timeouts } = options;
    const types = acceptedTypes(options.acceptContentTypes ?? '', options.contentType ?? 'protobuf');
    if (types.length === 0) {
      throw new KubeError(
        'KUBE_CONTENT_TYPE',
        `acceptContentTypes ${JSON.stringify(options.acceptContentTypes)} holds nothing that can be read: ` +
          'use application/vnd.kubernetes.protobuf, application/json, or both',
      );
    }
    const timings = { ...defaultReflectorTimings, ...options.timings };
    const server = new ServerState({
      timings: { ...defaultServerTimings, backoff: timings.backoff, ...options.serverTimings },
      contentTypes: types,
    });
    const client = new ApiClient(options.connection, {
      userAgent: options.userAgent ?? 'kube-proxy-ts',
      ...(timeouts === undefined ? {} : { timeouts }),
      ...(rateLimit === undefined ? {} : { rateLimit }),
      ...(rereadMs === undefined ? {} : { rereadMs }),
      ...(observer === undefined ? {} : { observer }),
      ...(dial === undefined ? {} : { dial }),
      connected: () => {
        server.connected();
      },
    });
    this.client = client;
    this.events = new EventRecorder(client, options.nodeName, log);
    if (options.streamingLists === false) server.streamingRefused(Infinity);
    const strings = new StringTable();
    const reflect = <T>(
      resource: Resource<T>,
      deliver: (key: string, object: T | undefined) => void,
    ): Running => {
      const target: ReflectorSink<T> = {
        deliver,
        unreadable: (key, uid, why) => {
          const slash = key.indexOf('/');
          const namespace = key.slice(0, Math.max(0, slash));
          options.onUnreadable?.({ kind: resource.kind, namespace, name: key.slice(slash + 1), uid }, why);
        },
        synced: () => {
          sink.synced(resource.kind);
        },
        flush: () => {
          sink.flush();
        },
        unconfirmed: (missing, held) => {
          options.onUnconfirmedList?.(resource.kind, missing, held);
        },
      };
      const reflector = new Reflector({
        resource,
        client,
        server,
        strings,
        sink: target,
        log,
        pageSize: options.pageSize ?? 500,
        gzip: options.gzip ?? true,
        timings,
      });
      return {
        kind: resource.kind,
        get status() {
          return reflector.status;
        },
        start: () => {
          reflector.start();
        },
        stop: () => reflector.stop(),
      };
    };
    const all = [
      reflect(services, (key, object) => {
        sink.service(key, object);
      }),
      reflect(endpointSlices, (key, object) => {
        sink.endpointSlice(key, object);
      }),
      reflect(ownNode(options.nodeName), (key, object) => {
        sink.node(key, object);
      }),
      reflect(serviceCIDRs, (key, object) => {
        sink.serviceCIDR(key, object);
      }),
    ];
    this.reflectors =
      options.kinds === undefined ? all : all.filter(({ kind }) => options.kinds?.includes(kind));
  }

  /** Returns at once; the sink hears of everything that follows. */
  start(): void {
    for (const reflector of this.reflectors) reflector.start();
  }

  /** Afterwards the sink is not called any more. */
  async stop(): Promise<void> {
    const stopped = Promise.all(this.reflectors.map((reflector) => reflector.stop()));
    // What they wait for, a credential plugin for example, ends now.
    this.events.close();
    this.client.close();
    await stopped;
  }

  /** Tells the cluster's users of something; on a best effort. */
  record(event: ClusterEvent): void {
    this.events.record(event);
  }

  /** For health endpoints and metrics; cheap enough to ask at every probe. */
  health(): SourceHealth {
    return sourceHealth(this.status(), Date.now());
  }

  status(): SourceStatus {
    return Object.fromEntries(this.reflectors.map(({ kind, status }) => [kind, status]));
  }
}
