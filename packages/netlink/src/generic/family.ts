/**
 * Generic netlink (linux/genetlink.h): parts of the kernel that got no netlink family of their own. Each has a name and,
 * for as long as the kernel runs, a number, which is the message type. Every payload begins with struct genlmsghdr:
 * command u8 | version u8 | reserved u16. The controller, number 16, tells which number a name has:
 *
 *     CTRL_CMD_GETFAMILY(3) → CTRL_CMD_NEWFAMILY(1)
 *         FAMILY_ID(1) u16, host order | FAMILY_NAME(2) string | VERSION(3) u32, host order
 */
import type { AttributeDecoder, AttributeWriter } from '../attribute.js';

export const GENL_HEADER = 4;
/** NLMSG_MIN_TYPE */
export const GENL_ID_CTRL = 0x10;
export const CTRL_CMD_NEWFAMILY = 1;
export const CTRL_CMD_GETFAMILY = 3;
export const CTRL_VERSION = 2;

const CTRL_ATTR = { FAMILY_ID: 1, FAMILY_NAME: 2, VERSION: 3 } as const;

/** A family as the controller describes it (CTRL_CMD_NEWFAMILY). */
export interface GenericFamily {
  /** Message type of its requests. */
  readonly id: number;
  readonly name: string;
  readonly version: number;
}

export function writeGenericHeader(writer: AttributeWriter, command: number, version: number): void {
  writer.raw(Buffer.of(command, version, 0, 0));
}

export function encodeFamilyName(writer: AttributeWriter, name: string): void {
  writer.string(CTRL_ATTR.FAMILY_NAME, name);
}

export function decodeFamily(d: AttributeDecoder): GenericFamily {
  let [id, version] = [0, 0];
  let name = '';
  while (d.next()) {
    if (d.type === CTRL_ATTR.FAMILY_ID) id = d.hostU16();
    else if (d.type === CTRL_ATTR.FAMILY_NAME) name = d.string();
    else if (d.type === CTRL_ATTR.VERSION) version = d.hostU32();
  }
  return { id, name, version };
}
