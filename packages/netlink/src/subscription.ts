/**
 * Multicast notifications. Node can't poll a descriptor that it did not open, so one asynchronous read is kept waiting
 * on libuv's thread pool: each subscription occupies one of its threads (UV_THREADPOOL_SIZE, 4 by default). The read waits
 * until something comes, and costs nothing until then; close() ends it.
 */
import { constants } from 'node:os';
import { NetlinkError } from './errors.js';
import { MessageReader } from './message.js';
import { NetlinkSocket } from './socket.js';

/** A handler that failed is called again after this, then after twice as long, …, milliseconds. */
const firstRetryMs = 100;
const maxRetryMs = 30_000;

/** Who is called with what a subscription brings. */
export interface SubscriptionHandlers {
  /** Datagrams of which nothing is wanted are passed over by this, unread. Absent: none. */
  readonly isWanted?: (datagram: Buffer) => boolean;
  /** Should it throw, the message counts as missing: onOverrun is called. */
  readonly onMessage: (message: MessageReader) => void;
  /**
   * The kernel had more to say than the socket holds (ENOBUFS), or something unreadable: notifications are
   * missing. The subscription goes on; read the whole state anew. Should it throw, it is called again after a while.
   */
  readonly onOverrun: () => void;
  /** The socket failed; the subscription has ended. */
  readonly onError: (error: NetlinkError) => void;
  /** Another handler threw this. */
  readonly onHandlerFailure?: (error: unknown) => void;
}

/** Of the socket behind a subscription. */
export interface SubscriptionOptions {
  /** Room for notifications that were not read yet, bytes. Default 4 MiB. */
  readonly receiveBuffer?: number;
  /** See SocketOptions. */
  readonly ignoredPorts?: readonly number[];
}

/** A membership in multicast groups. It keeps the process alive until it is closed. */
export class Subscription {
  private closing = false;
  private retry: NodeJS.Timeout | undefined;
  private retryMs = firstRetryMs;

  private constructor(
    private readonly socket: NetlinkSocket,
    private readonly groups: readonly number[],
    private readonly operation: string,
    private readonly handlers: SubscriptionHandlers,
  ) {
    void this.follow();
  }

  /**
   * @param protocol one of NETLINK_*
   * @param groups multicast groups, as numbers
   * @param operation for errors: 'watch addresses'
   */
  static open(
    protocol: number,
    groups: readonly number[],
    operation: string,
    handlers: SubscriptionHandlers,
    options: SubscriptionOptions = {},
  ): Subscription {
    const socket = NetlinkSocket.open(protocol, {
      ...options,
      groups,
      // Nothing is sent here, but for what ends a read.
      sendBuffer: 4096,
      receiveTimeoutMs: 0,
    });
    return new Subscription(socket, groups, operation, handlers);
  }

  /** No handler is called after this. Resolves when the socket is closed. */
  async close(): Promise<void> {
    this.closing = true;
    clearTimeout(this.retry);
    this.socket.close();
    await this.socket.released();
  }

  /**
   * Leaves the groups until resume(): the kernel need not write notifications for a large change of one's own.
   * What was sent before is still delivered.
   */
  pause(): void {
    if (!this.closing) for (const group of this.groups) this.socket.leave(group);
  }

  /** Joins the groups again. What happened meanwhile is not reported. */
  resume(): void {
    if (!this.closing) for (const group of this.groups) this.socket.join(group);
  }

  private async follow(): Promise<void> {
    while (!this.closing) {
      let datagram: Buffer;
      try {
        datagram = await this.socket.receiveAsync();
      } catch (error) {
        this.failed(error);
        continue;
      }
      this.deliver(datagram);
    }
  }

  private failed(error: unknown): void {
    // The socket was closed while it was waited for.
    if (this.closing) return;
    const errno = error instanceof NetlinkError ? error.errno : constants.errno.EIO;
    if (errno === constants.errno.ETIMEDOUT) return;
    if (errno === constants.errno.ENOBUFS) {
      this.overrun();
      return;
    }
    void this.close();
    this.guard(() => {
      this.handlers.onError(new NetlinkError({ operation: this.operation, errno, cause: error }));
    });
  }

  private deliver(datagram: Buffer): void {
    if (this.handlers.isWanted?.(datagram) === false) return;
    const messages = new MessageReader(datagram, this.operation);
    try {
      while (!this.isClosing() && messages.next()) this.handlers.onMessage(messages);
      messages.finish();
    } catch (error) {
      if (this.isClosing()) return;
      if (!(error instanceof NetlinkError)) this.guard(() => this.handlers.onHandlerFailure?.(error));
      this.overrun();
    }
  }

  /** The handlers may close the subscription. */
  private isClosing(): boolean {
    return this.closing;
  }

  /** Never throws: what onOverrun throws is caught by overrun(). */
  private readonly overrunAgain = (): void => {
    this.overrun();
  };

  private overrun(): void {
    clearTimeout(this.retry);
    const isDone = this.guard(() => {
      this.handlers.onOverrun();
    });
    if (isDone) {
      this.retryMs = firstRetryMs;
      return;
    }
    if (this.closing) return;
    this.retry = setTimeout(this.overrunAgain, this.retryMs).unref();
    this.retryMs = Math.min(2 * this.retryMs, maxRetryMs);
  }

  /** @returns whether it did not throw */
  private guard(call: () => void): boolean {
    try {
      call();
      return true;
    } catch (error) {
      try {
        this.handlers.onHandlerFailure?.(error);
      } catch {
        // There is no handler left to report it to.
      }
      return false;
    }
  }
}
