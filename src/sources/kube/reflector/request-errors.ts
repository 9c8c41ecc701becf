/** How a list or a watch can fail, beside what the connection and the decoders throw. */
import type { ApiStatus } from '../decode/decoded.js';
import { KubeError } from '../errors.js';

/** An answer that is not 2xx, or an ERROR event. */
export class StatusError extends KubeError {
  readonly status: ApiStatus;
  readonly verb: 'list' | 'watch';

  constructor(status: ApiStatus, verb: 'list' | 'watch', message: string) {
    const code =
      status.code === 401
        ? 'KUBE_UNAUTHORIZED'
        : status.code === 403
          ? 'KUBE_FORBIDDEN'
          : ('KUBE_API_STATUS' as const);
    super(code, message);
    this.status = status;
    this.verb = verb;
  }

  get expired(): boolean {
    return this.status.code === 410 || this.status.reason === 'Expired' || this.status.reason === 'Gone';
  }

  get versionTooLarge(): boolean {
    return (
      this.status.causes.includes('ResourceVersionTooLarge') ||
      /too large resource version/i.test(this.message)
    );
  }
}

/** The server does not know streaming lists, though it may not say so: plain ones are taken instead. */
export class NoStreamingList extends KubeError {
  override readonly name = 'NoStreamingList';

  constructor(message: string) {
    super('KUBE_TIMEOUT', message);
  }
}

/** What was said needs to be said once more: the next thing to do is a list of what is newest. */
export class Unconfirmed extends KubeError {
  override readonly name = 'Unconfirmed';

  constructor(message: string) {
    super('KUBE_API_STATUS', message);
  }
}

/** Versions no longer mean what they meant: the database was set back, or the cluster is another one. */
export class NewHistory extends KubeError {
  override readonly name = 'NewHistory';

  constructor(message: string) {
    super('KUBE_API_STATUS', message);
  }
}

/** A request was taken, but is not answered, while the server talks about other things. */
export class Unanswered extends KubeError {
  override readonly name = 'Unanswered';

  constructor(message: string) {
    super('KUBE_TIMEOUT', message);
  }
}

/** The answer had begun: the server works, or did until now. */
export class AnswerBroke extends KubeError {
  override readonly name = 'AnswerBroke';

  constructor(error: KubeError) {
    super(error.code, error.message, { cause: error });
  }
}

/**
 * For how long a server does without streaming lists after this; undefined: it says nothing about them. Servers without the
 * feature say 400, 405 or 422. Where only their etcd is too old they say 500 in an ERROR event, and one that ignores the
 * parameter never sends the closing bookmark: both may also be trouble that passes.
 */
export function streamingRefusal(error: unknown): 'lasting' | 'passing' | undefined {
  if (error instanceof NoStreamingList) return 'passing';
  if (!(error instanceof StatusError)) return undefined;
  if ([400, 405, 422].includes(error.status.code)) return 'lasting';
  return error.status.code === 500 ? 'passing' : undefined;
}

/** The same for failures with the same cure, whatever their messages say about kind and try. */
export function causeOf(failure: KubeError, kind: string): string {
  if (!(failure instanceof StatusError)) return failure.code;
  // Rights are granted one kind at a time.
  return `${failure.status.code} ${failure.code === 'KUBE_FORBIDDEN' ? kind : ''}`;
}
