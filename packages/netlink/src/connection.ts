/** Requests and dumps over one transport: sequence numbers, acknowledgements, multi-part answers. */
import { constants } from 'node:os';
import { AttributeWriter, locateAttribute, type AttributeNames } from './attribute.js';
import { NetlinkError } from './errors.js';
import {
  addFlags,
  closeMessage,
  type Acknowledgement,
  MESSAGE_HEADER,
  MessageReader,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  openMessage,
  setSequence,
} from './message.js';
import type { Transport } from './socket.js';

/** How often a dump that was interrupted by a change is started again before EINTR is thrown. */
const DUMP_ATTEMPTS = 8;

/** How to go about a dump that changes under the reader. */
export interface DumpOptions {
  /** See NetlinkConnection.dump(). */
  readonly onRestart?: () => void;
  /** Ends it before the next datagram; then the connection can only be closed. */
  readonly signal?: AbortSignal;
  /** Changes during the dump do not matter: it goes on, and some entries may be missing or come twice. */
  readonly inconsistent?: boolean;
}

/** One message to the kernel (linux/netlink.h, struct nlmsghdr). */
export interface Request {
  /** nlmsg_type. */
  readonly type: number;
  readonly flags?: number;
  /** As a phrase: 'list elements of set "service-ips"'. */
  readonly operation: string;
  /** Writes the payload: fixed header, then attributes. */
  readonly encode: (writer: AttributeWriter) => void;
  /**
   * What to say when the kernel calls a request invalid and names no attribute: that is how it rejects messages to
   * a subsystem that it lacks.
   */
  readonly missing?: string;
  /** To name the attribute that the kernel objects to. */
  readonly names?: { readonly headerLength: number; readonly attributes: AttributeNames };
}

/** One of many: what it is about need be put into words only when the kernel rejects it. */
export interface BatchedRequest extends Omit<Request, 'operation'> {
  readonly operation: string | (() => string);
}

/** A request among many that the kernel rejected. */
export interface Rejection {
  /** Of the request, counted from 0. */
  readonly index: number;
  readonly error: NetlinkError;
}

/**
 * Requests in one datagram. The kernel answers each rejection before the first answer can be read, and an answer counts
 * with about 1 KiB of the receive buffer: so many fit should all be rejected.
 */
const BATCH_REQUESTS = 2_000;
const BATCH_BYTES = 1 << 20;

/** Requests and dumps, one at a time; it does not own the transport, whoever made that closes it. */
export class NetlinkConnection {
  private sequence = 0;
  private readonly writer = new AttributeWriter();

  constructor(readonly transport: Transport) {}

  /** Reserves `count` consecutive sequence numbers, never 0, and returns the first. */
  nextSequence(count = 1): number {
    if (this.sequence + count > 0x7fffffff) this.sequence = 0;
    const first = this.sequence + 1;
    this.sequence += count;
    return first;
  }

  /** Sends one request and waits for its acknowledgement; the replies before it go to `onReply`. */
  execute(request: Request, onReply?: (message: MessageReader) => void): void {
    const sequence = this.send(request, NLM_F_ACK);
    let failure: unknown;
    for (;;) {
      const messages = new MessageReader(this.transport.receive(), request.operation);
      while (messages.next()) {
        if (messages.sequence !== sequence) continue;
        if (messages.type === NLMSG_ERROR) {
          const answer = messages.acknowledgement();
          if (answer.errno !== 0) throw this.rejected(request, answer);
          if (failure !== undefined) throw failure as Error;
          return;
        }
        try {
          onReply?.(messages);
        } catch (error) {
          // The acknowledgement is still to come, and must not be left for the next request.
          failure ??= error;
        }
      }
      messages.finish();
    }
  }

  /**
   * Sends many requests in as few datagrams as may be: the kernel works them off one by one, whatever becomes of the
   * others. Only failures and the end of a datagram are answered, so that a long list costs few answers.
   * @param onFailure gets the index of a request that the kernel rejected, in order
   * @throws NetlinkError when sending or receiving fails; how far the kernel came is not known then
   */
  executeAll(
    requests: Iterable<BatchedRequest>,
    onFailure: (index: number, error: NetlinkError) => void,
  ): void {
    const { writer } = this;
    let index = 0;
    let datagram: BatchedRequest[] = [];
    let starts: number[] = [];
    const send = (): void => {
      const first = index - datagram.length;
      this.executeDatagram(datagram, starts, (at, error) => {
        onFailure(first + at, error);
      });
      datagram = [];
      starts = [];
      writer.length = 0;
    };
    writer.length = 0;
    for (const request of requests) {
      starts.push(this.append(request, 0, 0));
      datagram.push(request);
      index++;
      if (datagram.length === BATCH_REQUESTS || writer.length >= BATCH_BYTES) send();
    }
    if (datagram.length > 0) send();
  }

  /** @param starts where each of the requests stands in the writer */
  private executeDatagram(
    requests: readonly BatchedRequest[],
    starts: readonly number[],
    onFailure: (index: number, error: NetlinkError) => void,
  ): void {
    const { writer } = this;
    const last = requests.length - 1;
    const first = this.nextSequence(requests.length);
    starts.forEach((start, index) => {
      setSequence(writer.buffer, start, first + index);
    });
    addFlags(writer.buffer, starts[last] ?? 0, NLM_F_ACK);
    this.transport.send(writer.buffer, writer.length);
    for (;;) {
      const messages = new MessageReader(this.transport.receive(), 'carry out many requests');
      while (messages.next()) {
        const index = messages.sequence - first;
        const request = requests[index];
        if (messages.type !== NLMSG_ERROR || request === undefined) continue;
        const answer = messages.acknowledgement();
        if (answer.errno !== 0)
          onFailure(index, this.rejected(request, answer, starts[index], starts[index + 1]));
        if (index === last) return;
      }
      messages.finish();
    }
  }

  /**
   * Dumps a whole table. `onMessage` gets each entry as it arrives. When the table changed meanwhile, what was
   * delivered can't be trusted: `onRestart` is called and the dump starts again (a bounded number of times).
   * @throws NetlinkError EINTR when the table keeps changing, or changed and there is no `onRestart`
   */
  dump(request: Request, onMessage: (message: MessageReader) => void, onRestart?: () => void): void {
    for (let attempt = 1; ; attempt++) {
      const answer = new DumpAnswer(request.operation, this.send(request, NLM_F_DUMP), onMessage);
      while (!answer.take(this.transport.receive()));
      if (this.consistent(request, answer)) return;
      restart(request, attempt, onRestart);
    }
  }

  /**
   * Like dump(), but the kernel's work is done on libuv's thread pool, and each datagram is a turn of the event loop.
   * The connection is not to be used until the promise is settled.
   */
  async dumpAsync(
    request: Request,
    onMessage: (message: MessageReader) => void,
    options: DumpOptions = {},
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const sequence = this.prepare(request, NLM_F_DUMP);
      // The kernel writes the first part of its answer while it takes the request.
      await this.transport.sendAsync(this.writer.buffer, this.writer.length);
      const answer = new DumpAnswer(request.operation, sequence, onMessage, options.inconsistent);
      do options.signal?.throwIfAborted();
      while (!answer.take(await this.transport.receiveAsync()));
      if (this.consistent(request, answer)) return;
      restart(request, attempt, options.onRestart);
    }
  }

  /** @throws what the kernel, or the receiver of the entries, had to say */
  private consistent(request: Request, answer: DumpAnswer): boolean {
    const { end } = answer;
    if (answer.failure !== undefined) throw answer.failure as Error;
    if (end.errno === constants.errno.EINTR) return false;
    if (end.errno !== 0) throw this.rejected(request, end);
    return answer.consistent;
  }

  private send(request: Request, flags: number): number {
    const sequence = this.prepare(request, flags);
    this.transport.send(this.writer.buffer, this.writer.length);
    return sequence;
  }

  /** Encodes a request alone. @returns its sequence number */
  private prepare(request: Request, flags: number): number {
    this.writer.length = 0;
    const sequence = this.nextSequence();
    this.append(request, sequence, flags);
    return sequence;
  }

  /** @returns where the message starts */
  private append(request: BatchedRequest, sequence: number, flags: number): number {
    const { writer } = this;
    const start = openMessage(writer, request.type, NLM_F_REQUEST | (request.flags ?? 0) | flags);
    request.encode(writer);
    closeMessage(writer, start);
    setSequence(writer.buffer, start, sequence);
    return start;
  }

  /** The request is buffer[start, end) of what was sent. */
  private rejected(
    request: BatchedRequest,
    answer: Acknowledgement,
    start = 0,
    end = this.writer.length,
  ): NetlinkError {
    const location =
      answer.attributeOffset === undefined || request.names === undefined
        ? undefined
        : locateAttribute(
            this.writer.buffer,
            start + MESSAGE_HEADER + request.names.headerLength,
            end,
            start + answer.attributeOffset,
            request.names.attributes,
          );
    const { operation } = request;
    return new NetlinkError({
      operation: typeof operation === 'string' ? operation : operation(),
      errno: answer.errno,
      extendedAck: answer.text,
      attribute: location?.path,
      hint:
        answer.errno === constants.errno.EINVAL && answer.attributeOffset === undefined
          ? request.missing
          : rejectionHint(answer.errno),
    });
  }
}

/** The datagrams of one dump, up to its end. */
class DumpAnswer {
  /** No change was reported so far. */
  consistent = true;
  /** What the receiver of the entries threw. */
  failure: unknown;
  end: Acknowledgement = { errno: 0, text: undefined, attributeOffset: undefined };

  constructor(
    private readonly operation: string,
    private readonly sequence: number,
    private readonly onMessage: (message: MessageReader) => void,
    private readonly inconsistent = false,
  ) {}

  /** @returns whether this was the last datagram */
  take(datagram: Buffer): boolean {
    const messages = new MessageReader(datagram, this.operation);
    while (messages.next()) {
      if (messages.sequence !== this.sequence) continue;
      if ((messages.flags & NLM_F_DUMP_INTR) !== 0 && !this.inconsistent) this.consistent = false;
      if (messages.type === NLMSG_ERROR || messages.type === NLMSG_DONE) {
        this.end = messages.acknowledgement();
        return true;
      }
      // After a failure or a change only the end is of interest: the kernel runs one dump per socket at a time.
      if (this.failure !== undefined || !this.consistent) continue;
      try {
        this.onMessage(messages);
      } catch (error) {
        this.failure = error;
      }
    }
    messages.finish();
    return false;
  }
}

function restart(request: Request, attempt: number, onRestart: (() => void) | undefined): void {
  if (onRestart === undefined || attempt === DUMP_ATTEMPTS) {
    throw new NetlinkError({
      operation: request.operation,
      errno: constants.errno.EINTR,
      extendedAck: 'the table changed while it was read',
      hint: 'try again',
    });
  }
  onRestart();
}

/** What to do about a rejection that has nothing to do with the message itself. */
export function rejectionHint(errno: number): string | undefined {
  switch (errno) {
    case constants.errno.EPERM:
    case constants.errno.EACCES:
      return 'CAP_NET_ADMIN in the network namespace is needed: run as root';
    case constants.errno.EOPNOTSUPP:
      return 'the kernel lacks this subsystem, or its module is not loaded';
    default:
      return undefined;
  }
}
