/** A transport without a kernel: answers are scripted, what was sent can be looked at. */
import { constants } from 'node:os';
import { AttributeWriter } from '../attribute.js';
import { readHostU32 } from '../endian.js';
import { NetlinkError } from '../errors.js';
import { closeMessage, NLMSG_DONE, NLMSG_ERROR, openMessage, setSequence } from '../message.js';
import type { Transport } from '../socket.js';

/** A Transport that answers from a script; nothing reaches the kernel. */
export class FakeTransport implements Transport {
  readonly portId = 4711;
  readonly maxDatagram = 1_000_000;
  /** Every datagram that was sent. */
  readonly sent: Buffer[] = [];
  private readonly queue: Buffer[] = [];

  /** @param answer the datagrams that one request causes; it gets what was sent, and the first sequence number in it */
  constructor(
    private readonly answer: (sent: Buffer, sequence: number, attempt: number) => readonly Buffer[],
  ) {}

  send(buffer: Buffer, length: number): void {
    const sent = Buffer.from(buffer.subarray(0, length));
    this.sent.push(sent);
    this.queue.push(...this.answer(sent, readHostU32(sent, 8), this.sent.length));
  }

  receive(): Buffer {
    const next = this.queue.shift();
    if (next !== undefined) return next;
    throw new NetlinkError({ operation: 'receive from fake', errno: constants.errno.ETIMEDOUT });
  }

  async sendAsync(buffer: Buffer, length: number): Promise<void> {
    await Promise.resolve();
    this.send(buffer, length);
  }

  async receiveAsync(): Promise<Buffer> {
    await Promise.resolve();
    return this.receive();
  }

  close(): void {
    this.queue.length = 0;
  }
}

/** One message. */
export function message(type: number, flags: number, sequence: number, payload: Uint8Array): Buffer {
  const writer = new AttributeWriter();
  const start = openMessage(writer, type, flags);
  writer.raw(payload);
  closeMessage(writer, start);
  setSequence(writer.buffer, start, sequence);
  return Buffer.from(writer.bytes());
}

/**
 * An acknowledgement as the kernel sends it to a socket with NETLINK_CAP_ACK and NETLINK_EXT_ACK.
 * @param errno 0: success
 */
export function acknowledgement(
  sequence: number,
  errno: number,
  extended: { readonly text?: string; readonly offset?: number } = {},
): Buffer {
  const NLM_F_CAPPED_AND_TLVS = 0x300;
  const body = new AttributeWriter();
  const code = new Int32Array([-errno]);
  body.raw(new Uint8Array(code.buffer)).raw(Buffer.alloc(16));
  if (extended.text !== undefined) body.string(1, extended.text);
  if (extended.offset !== undefined) body.hostU32(2, extended.offset);
  return message(NLMSG_ERROR, NLM_F_CAPPED_AND_TLVS, sequence, body.bytes());
}

/** The end of a dump. */
export function done(sequence: number): Buffer {
  return message(NLMSG_DONE, 2, sequence, Buffer.alloc(4));
}
