/**
 * Events (events.k8s.io/v1) for what an operator should see with `kubectl describe`. Sent on a best effort: an event that
 * does not arrive is a log line at verbosity 4, and nothing waits for it. A storm of them is spread over time, so that
 * thousands of nodes that see the same thing do not bury the API server, and cut off where it does not end.
 */
import { randomBytes } from 'node:crypto';
import { guarded } from '../../callbacks/guarded.js';
import { errorText, type Logger } from '../../log/logger.js';
import { follow } from './reflector/abort.js';
import type { ApiClient } from './client/client.js';

export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  /** '' for objects without a namespace. */
  readonly namespace: string;
  readonly name: string;
  /** '' when unknown. */
  readonly uid: string;
}

export interface ClusterEvent {
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly action: string;
  readonly regarding: ObjectReference;
  /** At most 1 kB is kept (events.k8s.io/v1, in bytes). */
  readonly note: string;
}

const timeoutMs = 10_000;
export interface EventPacing {
  /** So many are sent at once; … */
  readonly burst: number;
  /** … and then one whenever so many milliseconds have passed. */
  readonly refillMs: number;
}

const usualPacing: EventPacing = { burst: 25, refillMs: 2_000 };
/** Events that wait for their turn; those beyond are lost. */
const maxWaiting = 256;
const maxNoteBytes = 1024;

class ForbiddenError extends Error {}

export class EventRecorder {
  private tokens: number;
  private refilledAt = performance.now();
  /** By what they are about: of two about the same the later one says how things are. */
  private readonly waiting = new Map<string, ClusterEvent>();
  private timer: NodeJS.Timeout | undefined;
  private forbidden = false;
  private readonly abort = new AbortController();

  constructor(
    private readonly client: ApiClient,
    private readonly nodeName: string,
    private readonly log: Logger,
    private readonly pacing = usualPacing,
  ) {
    this.tokens = pacing.burst;
  }

  record(event: ClusterEvent): void {
    const { kind, namespace, name } = event.regarding;
    const about = `${event.reason} ${kind} ${namespace}/${name}`;
    this.refill();
    if (this.tokens > 0 && this.waiting.size === 0) {
      this.tokens--;
      void this.deliver(event);
    } else if (this.waiting.size < maxWaiting || this.waiting.has(about)) {
      this.waiting.set(about, event);
      this.timer ??= setInterval(
        guarded('send events', () => {
          this.deliverNext();
        }),
        this.pacing.refillMs,
      ).unref();
    } else {
      this.log.debug(4, 'Failed to send event', { reason: event.reason, err: 'too many events' });
    }
  }

  private refill(): void {
    const { burst, refillMs } = this.pacing;
    const earned = Math.floor((performance.now() - this.refilledAt) / refillMs);
    if (earned <= 0) return;
    this.tokens = Math.min(burst, this.tokens + earned);
    this.refilledAt += earned * refillMs;
  }

  private deliverNext(): void {
    this.refill();
    for (const [about, event] of this.waiting) {
      if (this.tokens === 0) return;
      this.tokens--;
      this.waiting.delete(about);
      void this.deliver(event);
    }
    clearInterval(this.timer);
    this.timer = undefined;
  }

  /** Settles when the event has arrived, or can't be delivered. */
  async deliver(event: ClusterEvent): Promise<void> {
    try {
      await this.send(event);
    } catch (error) {
      this.failed(event, error);
    }
  }

  /** The first time that the API server forbids events is told: nobody would look for them elsewhere. */
  private failed({ reason }: ClusterEvent, error: unknown): void {
    if (error instanceof ForbiddenError && !this.forbidden) {
      this.forbidden = true;
      this.log.warn('Failed to send events: forbidden, further ones are lost', {
        reason,
        err: errorText(error),
        hint: 'allow create on events of API group events.k8s.io, as ClusterRole system:node-proxier does',
      });
      return;
    }
    this.log.debug(4, 'Failed to send event', { reason, err: errorText(error) });
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.waiting.clear();
    this.abort.abort();
  }

  private async send({ type, reason, action, regarding, note }: ClusterEvent): Promise<void> {
    const namespace = regarding.namespace === '' ? 'default' : regarding.namespace;
    const object = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${eventName(regarding.name)}.${randomBytes(8).toString('hex')}`, namespace },
      // MicroTime: exactly six digits.
      eventTime: new Date().toISOString().replace('Z', '000Z'),
      reportingController: 'kube-proxy',
      reportingInstance: `kube-proxy-${this.nodeName}`,
      type,
      reason,
      action,
      regarding: {
        apiVersion: regarding.apiVersion,
        kind: regarding.kind,
        name: regarding.name,
        ...(regarding.namespace === '' ? {} : { namespace: regarding.namespace }),
        ...(regarding.uid === '' ? {} : { uid: regarding.uid }),
      },
      note: cut(note),
    };
    const request = new AbortController();
    const unfollow = follow(this.abort.signal, request);
    const timer = setTimeout(
      guarded('give an event up', () => {
        request.abort(new Error(`the API server took more than ${timeoutMs / 1000} s`));
      }),
      timeoutMs,
    );
    try {
      await this.post(namespace, object, request.signal);
    } finally {
      clearTimeout(timer);
      unfollow();
    }
  }

  private async post(namespace: string, object: unknown, signal: AbortSignal): Promise<void> {
    const response = await this.client.request({
      target: `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`,
      accept: 'application/json',
      gzip: false,
      // The recorder has a limit of its own; lists and watches do not wait for events, nor these for them.
      pastRateLimit: true,
      stallMs: timeoutMs,
      signal,
      post: Buffer.from(JSON.stringify(object)),
    });
    // Read to the end, so that the connection can be used again.
    let answer = '';
    for await (const chunk of response.body) answer += chunk.toString();
    if (response.status === 403)
      throw new ForbiddenError(`the API server answered 403: ${answer.slice(0, 200)}`);
    if (response.status >= 300)
      throw new Error(`the API server answered ${response.status}: ${answer.slice(0, 200)}`);
  }
}

/** What a name of an object has to look like (RFC 1123 subdomain), with room for what makes the event's unique. */
const proper = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
const maxName = 200;

/** An event about an object that should not exist must not be refused for the object's name. */
function eventName(name: string): string {
  if (name.length <= maxName && proper.test(name)) return name;
  const like = name
    .slice(0, maxName)
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  return like === '' ? 'object' : like;
}

function cut(note: string): string {
  if (Buffer.byteLength(note) <= maxNoteBytes) return note;
  const buffer = Buffer.alloc(maxNoteBytes);
  // Whole characters only.
  return buffer.toString('utf8', 0, buffer.write(note));
}
