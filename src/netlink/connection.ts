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

export interface Request {
  /** nlmsg_type. */
  readonly type: number;
  readonly flags?: number;
  /** As a phrase: 'list elements of set "service-ips"'. */
  readonly operation: string;
  /** Writes the payload: fixed header, then attributes. */
  readonly encode: (writer: AttributeWriter) => void;
  /**
   * What to say when the kernel calls a request invalid and names no attribute: that is how it refuses messages to
   * a subsystem that it lacks.
   */
  readonly missing?: string;
  /** To name the attribute that the kernel objects to. */
  readonly names?: { readonly headerLength: number; readonly attributes: AttributeNames };
}

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
          if (answer.errno !== 0) throw this.refused(request, answer);
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
   * Asks for a whole table. `onMessage` gets each entry as it arrives. When the table changed meanwhile, what was
   * delivered can't be trusted: `onRestart` is called and the dump starts again (a bounded number of times).
   * @throws NetlinkError EINTR when the table keeps changing, or changed and there is no `onRestart`
   */
  dump(request: Request, onMessage: (message: MessageReader) => void, onRestart?: () => void): void {
    for (let attempt = 1; ; attempt++) {
      if (this.dumpOnce(request, onMessage)) return;
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
  }

  /** @returns false when the dump was interrupted by a change */
  private dumpOnce(request: Request, onMessage: (message: MessageReader) => void): boolean {
    const sequence = this.send(request, NLM_F_DUMP);
    let consistent = true;
    let failure: unknown;
    for (;;) {
      const messages = new MessageReader(this.transport.receive(), request.operation);
      while (messages.next()) {
        if (messages.sequence !== sequence) continue;
        if ((messages.flags & NLM_F_DUMP_INTR) !== 0) consistent = false;
        if (messages.type === NLMSG_ERROR || messages.type === NLMSG_DONE) {
          const answer = messages.acknowledgement();
          if (failure !== undefined) throw failure as Error;
          if (answer.errno === constants.errno.EINTR) return false;
          if (answer.errno !== 0) throw this.refused(request, answer);
          return consistent;
        }
        // After a failure or a change only the end is of interest: the kernel runs one dump per socket at a time.
        if (failure !== undefined || !consistent) continue;
        try {
          onMessage(messages);
        } catch (error) {
          failure = error;
        }
      }
      messages.finish();
    }
  }

  private send(request: Request, flags: number): number {
    const { writer } = this;
    writer.length = 0;
    const start = openMessage(writer, request.type, NLM_F_REQUEST | (request.flags ?? 0));
    request.encode(writer);
    closeMessage(writer, start);
    addFlags(writer.buffer, start, flags);
    const sequence = this.nextSequence();
    setSequence(writer.buffer, start, sequence);
    this.transport.send(writer.buffer, writer.length);
    return sequence;
  }

  private refused(request: Request, answer: Acknowledgement): NetlinkError {
    const location =
      answer.attributeOffset === undefined || request.names === undefined
        ? undefined
        : locateAttribute(
            this.writer.buffer,
            MESSAGE_HEADER + request.names.headerLength,
            this.writer.length,
            answer.attributeOffset,
            request.names.attributes,
          );
    return new NetlinkError({
      operation: request.operation,
      errno: answer.errno,
      extendedAck: answer.text,
      attribute: location?.path,
      hint:
        answer.errno === constants.errno.EINVAL && answer.attributeOffset === undefined
          ? request.missing
          : refusalHint(answer.errno),
    });
  }
}

/** What to do about a refusal that has nothing to do with the message itself. */
export function refusalHint(errno: number): string | undefined {
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
