/**
 * Multicast notifications. Node can't poll a descriptor that it did not open, so one asynchronous read is kept waiting
 * on libuv's thread pool: each subscription occupies one of its threads (UV_THREADPOOL_SIZE, 4 by default). The
 * read ends by itself after a while, so that close() takes effect.
 */
import { read } from 'node:fs';
import { constants } from 'node:os';
import { errnoOf, NetlinkError } from './errors.js';
import { MessageReader } from './message.js';
import { NetlinkSocket, RECEIVE_SIZE } from './socket.js';

/** Longest time that close() takes, milliseconds. */
const READ_TIMEOUT_MS = 250;

export interface SubscriptionHandlers {
  readonly onMessage: (message: MessageReader) => void;
  /**
   * The kernel had more to say than the socket holds (ENOBUFS), or something unreadable: notifications are
   * missing. The subscription goes on; read the whole state anew.
   */
  readonly onOverrun: () => void;
  /** The socket failed; the subscription has ended. */
  readonly onError: (error: NetlinkError) => void;
}

export interface SubscriptionOptions {
  /** Room for notifications that were not read yet, bytes. Default 4 MiB. */
  readonly receiveBuffer?: number;
  /** See SocketOptions. */
  readonly ignoredPorts?: readonly number[];
}

/** A membership in multicast groups. It keeps the process alive until it is closed. */
export class Subscription {
  private closing = false;
  private readonly buffer = Buffer.allocUnsafeSlow(RECEIVE_SIZE);
  private readonly ended: Promise<void>;
  private end: () => void = () => undefined;

  private constructor(
    private readonly socket: NetlinkSocket,
    private readonly groups: readonly number[],
    private readonly operation: string,
    private readonly handlers: SubscriptionHandlers,
  ) {
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
    this.wait();
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
      // Nothing is sent here.
      sendBuffer: 4096,
      receiveTimeoutMs: READ_TIMEOUT_MS,
    });
    return new Subscription(socket, groups, operation, handlers);
  }

  /** No handler is called after this. Resolves when the socket is closed, in at most a quarter of a second. */
  close(): Promise<void> {
    this.closing = true;
    return this.ended;
  }

  /**
   * Leaves the groups until resume(): the kernel need not write notifications for a large change of one's own.
   * What was sent before is still delivered.
   */
  pause(): void {
    for (const group of this.groups) this.socket.leave(group);
  }

  /** Joins the groups again. What happened meanwhile is not told. */
  resume(): void {
    for (const group of this.groups) this.socket.join(group);
  }

  private wait(): void {
    read(this.socket.fd, this.buffer, 0, RECEIVE_SIZE, null, (error, size) => {
      // The handlers may close the subscription, or throw: the loop goes on or ends in any case.
      try {
        if (!this.closing) this.received(error, size);
      } finally {
        this.proceed();
      }
    });
  }

  private proceed(): void {
    if (this.closing) {
      this.socket.close();
      this.end();
    } else {
      this.wait();
    }
  }

  private received(error: NodeJS.ErrnoException | null, size: number): void {
    if (error === null) {
      this.deliver(size);
      return;
    }
    const errno = errnoOf(error);
    if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return;
    if (errno === constants.errno.ENOBUFS) {
      this.handlers.onOverrun();
      return;
    }
    this.closing = true;
    this.handlers.onError(new NetlinkError({ operation: this.operation, errno, cause: error }));
  }

  private deliver(size: number): void {
    const messages = new MessageReader(this.buffer.subarray(0, size), this.operation);
    try {
      while (!this.closing && messages.next()) this.handlers.onMessage(messages);
      messages.finish();
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      this.handlers.onOverrun();
    }
  }
}
