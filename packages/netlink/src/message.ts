/**
 * Netlink messages (linux/netlink.h, struct nlmsghdr), in the byte order of the machine:
 * length u32 | type u16 | flags u16 | sequence u32 | port id u32 | payload, padded to 4.
 */
import { align4, AttributeDecoder, type AttributeWriter } from './attribute.js';
import { readHostI32, readHostU16, readHostU32, writeHostU16, writeHostU32 } from './endian.js';
import { malformed, type NetlinkError } from './errors.js';

export const MESSAGE_HEADER = 16;

/** Does nothing; acknowledged when that is asked for. */
export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLMSG_OVERRUN = 4;
/** Types below belong to netlink itself. */
export const NLMSG_MIN_TYPE = 0x10;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
/** GET: the whole table (NLM_F_ROOT | NLM_F_MATCH). */
export const NLM_F_DUMP = 0x300;
/** DELETE and CREATE, for subsystems that pass over what is gone or there already unless it is set. */
export const NLM_F_EXCL = 0x200;
/** NEW: make the object when there is none. */
export const NLM_F_CREATE = 0x400;
/** NEW: put the object behind those that are there. */
export const NLM_F_APPEND = 0x800;
/** Acknowledgements: the failing message is cut to its header; attributes follow. */
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** Starts a message at the end of the writer; length and sequence are filled in later. Returns where it starts. */
export function openMessage(writer: AttributeWriter, type: number, flags: number): number {
  const start = writer.length;
  writer.reserve(MESSAGE_HEADER);
  writeHostU32(writer.buffer, start, 0);
  writeHostU16(writer.buffer, start + 4, type);
  writeHostU16(writer.buffer, start + 6, flags);
  writeHostU32(writer.buffer, start + 8, 0);
  writeHostU32(writer.buffer, start + 12, 0);
  writer.length += MESSAGE_HEADER;
  return start;
}

export function closeMessage(writer: AttributeWriter, start: number): void {
  writeHostU32(writer.buffer, start, writer.length - start);
}

export function setSequence(buffer: Buffer, start: number, sequence: number): void {
  writeHostU32(buffer, start + 8, sequence);
}

export function addFlags(buffer: Buffer, start: number, flags: number): void {
  writeHostU16(buffer, start + 6, readHostU16(buffer, start + 6) | flags);
}

export function clearFlags(buffer: Buffer, start: number, flags: number): void {
  writeHostU16(buffer, start + 6, readHostU16(buffer, start + 6) & ~flags);
}

/** What an NLMSG_ERROR (or the end of a dump) says. */
export interface Acknowledgement {
  /** Positive errno; 0: success. */
  readonly errno: number;
  readonly text: string | undefined;
  /** Byte offset of the bad attribute from the start of the message that failed. */
  readonly attributeOffset: number | undefined;
}

/** Iterates over the messages of one datagram, with one sticky error like AttributeDecoder. */
export class MessageReader {
  type = 0;
  flags = 0;
  sequence = 0;
  /** Who caused the message: 0 is the kernel itself, else the port id of the socket whose request did. */
  portId = 0;
  /** The message is buffer[start, end), its payload buffer[payload, end). */
  start = 0;
  payload = 0;
  end = 0;
  private position = 0;
  private error: NetlinkError | undefined;

  constructor(
    readonly buffer: Buffer,
    private readonly operation: string,
  ) {}

  /** @returns false at the end of the datagram, and at the first message that is malformed */
  next(): boolean {
    if (this.error !== undefined) return false;
    const left = this.buffer.length - this.position;
    if (left < MESSAGE_HEADER) return false;
    const size = readHostU32(this.buffer, this.position);
    if (size < MESSAGE_HEADER || size > left) {
      this.error = malformed(this.operation, this.position, `message says ${size} bytes, ${left} are left`);
      return false;
    }
    this.start = this.position;
    this.type = readHostU16(this.buffer, this.start + 4);
    this.flags = readHostU16(this.buffer, this.start + 6);
    this.sequence = readHostU32(this.buffer, this.start + 8);
    this.portId = readHostU32(this.buffer, this.start + 12);
    this.payload = this.start + MESSAGE_HEADER;
    this.end = this.start + size;
    this.position += align4(size);
    if (this.type === NLMSG_OVERRUN)
      this.error = malformed(this.operation, this.start, 'data lost (overrun)');
    return this.error === undefined;
  }

  /** The current message as an acknowledgement (NLMSG_ERROR, NLMSG_DONE). */
  acknowledgement(): Acknowledgement {
    // A dump of an old kernel may end without a code.
    if (this.end - this.payload < 4) return { errno: 0, text: undefined, attributeOffset: undefined };
    const errno = Math.abs(readHostI32(this.buffer, this.payload));
    let text: string | undefined;
    let attributeOffset: number | undefined;
    if ((this.flags & NLM_F_ACK_TLVS) !== 0) {
      const attributes = new AttributeDecoder(
        this.buffer,
        Math.min(this.payload + 4 + this.failedMessageSize(), this.end),
        this.end,
        this.operation,
      );
      while (attributes.next()) {
        if (attributes.type === NLMSGERR_ATTR_MSG) text = attributes.string();
        else if (attributes.type === NLMSGERR_ATTR_OFFS) attributeOffset = attributes.hostU32();
      }
    }
    return { errno, text, attributeOffset };
  }

  /** Bytes of the failing message that an NLMSG_ERROR repeats before its attributes. */
  private failedMessageSize(): number {
    if (this.type !== NLMSG_ERROR) return 0;
    if ((this.flags & NLM_F_CAPPED) !== 0 || this.end - this.payload < 8) return MESSAGE_HEADER;
    return align4(readHostU32(this.buffer, this.payload + 4));
  }

  /** Attributes of the current message, after a fixed header of `headerLength` bytes. */
  attributes(headerLength: number): AttributeDecoder {
    return new AttributeDecoder(
      this.buffer,
      Math.min(this.payload + headerLength, this.end),
      this.end,
      this.operation,
    );
  }

  /** @throws NetlinkError EBADMSG when the datagram was malformed. */
  finish(): void {
    if (this.error !== undefined) throw this.error;
  }
}
