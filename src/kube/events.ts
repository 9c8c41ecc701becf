/**
 * Events (events.k8s.io/v1) for what an operator should see with `kubectl describe`. Sent on a best effort: an event that
 * does not arrive is a log line at verbosity 4, nothing waits for it, and a storm of them is cut off.
 */
import { randomBytes } from 'node:crypto';
import { errorText, type Logger } from '../log/logger.js';
import type { ApiClient } from './http/client.js';

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
  /** At most 1 kB is kept (events.k8s.io/v1). */
  readonly note: string;
}

const timeoutMs = 10_000;
/** Sent at once; refilled one every few seconds. */
const burst = 25;
const refillMs = 5_000;
const maxNote = 1024;

export class EventRecorder {
  #tokens = burst;
  #refilledAt = Date.now();
  readonly #abort = new AbortController();

  constructor(
    private readonly client: ApiClient,
    private readonly nodeName: string,
    private readonly log: Logger,
  ) {}

  record(event: ClusterEvent): void {
    const now = Date.now();
    const earned = Math.floor((now - this.#refilledAt) / refillMs);
    if (earned > 0) {
      this.#tokens = Math.min(burst, this.#tokens + earned);
      this.#refilledAt = now;
    }
    if (this.#tokens === 0) return;
    this.#tokens--;
    void this.deliver(event);
  }

  /** Settles when the event has arrived, or can't be delivered. */
  async deliver(event: ClusterEvent): Promise<void> {
    try {
      await this.#send(event);
    } catch (error) {
      this.log.debug(4, 'An event could not be sent', { reason: event.reason, why: errorText(error) });
    }
  }

  close(): void {
    this.#abort.abort();
  }

  async #send({ type, reason, action, regarding, note }: ClusterEvent): Promise<void> {
    const namespace = regarding.namespace === '' ? 'default' : regarding.namespace;
    const object = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${regarding.name}.${randomBytes(8).toString('hex')}`, namespace },
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
      note: note.slice(0, maxNote),
    };
    const response = await this.client.request({
      target: `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`,
      accept: 'application/json',
      gzip: false,
      stallMs: timeoutMs,
      signal: AbortSignal.any([this.#abort.signal, AbortSignal.timeout(timeoutMs)]),
      post: Buffer.from(JSON.stringify(object)),
    });
    // Read to the end, so that the connection can be used again.
    let answer = '';
    for await (const chunk of response.body) answer += chunk.toString();
    if (response.status >= 300)
      throw new Error(`the API server answered ${response.status}: ${answer.slice(0, 200)}`);
  }
}
