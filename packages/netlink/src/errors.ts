/** The one error class of this library. */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** Errno values that the kernel sends over netlink and Node has no name for (linux/errno.h, asm-generic/errno.h). */
const UNNAMED: ReadonlyMap<number, readonly [code: string, text: string]> = new Map([
  [61, ['ENODATA', 'no data']],
  [74, ['EBADMSG', 'malformed message']],
  [85, ['ERESTART', 'interrupted, or outdated: to be started again']],
  [512, ['ERESTARTSYS', 'interrupted by a signal']],
  [524, ['ENOTSUPP', 'operation is not supported by this kernel']],
]);

/** Errno names with a meaning of our own: the messages we could not make sense of, or could not build. */
export const EBADMSG = constants.errno.EBADMSG;
export const EINVAL = constants.errno.EINVAL;

/** 'ENOENT' for 2; 'E999' for a number that nobody has named. */
export function errnoCode(errno: number): string {
  return UNNAMED.get(errno)?.[0] ?? getSystemErrorMap().get(-errno)?.[0] ?? `E${errno}`;
}

function errnoText(errno: number): string {
  return UNNAMED.get(errno)?.[1] ?? getSystemErrorMap().get(-errno)?.[1] ?? `error ${errno}`;
}

/** What a NetlinkError is made of; its fields of the same names. */
export interface NetlinkErrorDetails {
  /** What was being done, as a phrase: 'add element to map "service-ips"'. */
  readonly operation: string;
  /** Positive errno. */
  readonly errno: number;
  /** Text of the kernel's extended acknowledgement (NLMSGERR_ATTR_MSG). */
  readonly extendedAck?: string | undefined;
  /** The attribute that the kernel objects to, by name: 'elements[3].key'. */
  readonly attribute?: string | undefined;
  /** In a batch: index of the failing message, counted from 0, batch begin not included. */
  readonly messageIndex?: number | undefined;
  /** In a message with a list of set elements: index of the failing element in that message. */
  readonly elementIndex?: number | undefined;
  /** The failing element's key: register contents. */
  readonly elementKey?: Buffer | undefined;
  /** What the reader can do about it. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/**
 * Anything that goes wrong here: the kernel rejected a message, a socket call failed, or bytes can't be
 * decoded (code EBADMSG) or encoded (code EINVAL, ERANGE).
 */
export class NetlinkError extends Error {
  /** Errno name: 'ENOENT', 'EPERM', … Stable. */
  readonly code: string;
  readonly errno: number;
  readonly operation: string;
  readonly extendedAck: string | undefined;
  readonly attribute: string | undefined;
  readonly messageIndex: number | undefined;
  readonly elementIndex: number | undefined;
  readonly elementKey: Buffer | undefined;
  readonly hint: string | undefined;

  constructor(details: NetlinkErrorDetails) {
    const code = errnoCode(details.errno);
    const where = details.attribute === undefined ? '' : ` at ${details.attribute}`;
    const key = details.elementKey === undefined ? '' : ` (key ${details.elementKey.toString('hex')})`;
    const ack = details.extendedAck === undefined ? '' : `: ${details.extendedAck}`;
    const hint = details.hint === undefined ? '' : ` (${details.hint})`;
    super(
      `${details.operation}: ${errnoText(details.errno)} [${code}]${where}${key}${ack}${hint}`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.name = 'NetlinkError';
    this.code = code;
    this.errno = details.errno;
    this.operation = details.operation;
    this.extendedAck = details.extendedAck;
    this.attribute = details.attribute;
    this.messageIndex = details.messageIndex;
    this.elementIndex = details.elementIndex;
    this.elementKey = details.elementKey;
    this.hint = details.hint;
  }
}

/** The errno of an exception thrown by Node's fs, or EIO when it carries none. */
export function errnoOf(error: unknown): number {
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') {
    return Math.abs(error.errno);
  }
  return constants.errno.EIO;
}

/** Bytes that don't follow the format. `offset` counts from the start of the datagram. */
export function malformed(operation: string, offset: number, what: string): NetlinkError {
  return new NetlinkError({ operation, errno: EBADMSG, extendedAck: `${what} at byte ${offset}` });
}

/** Something the caller wants to send does not fit the format. */
export function invalid(operation: string, what: string, cause?: unknown): NetlinkError {
  return new NetlinkError({ operation, errno: EINVAL, extendedAck: what, cause });
}
