/**
 * The packet's scratch registers (linux/netfilter/nf_tables.h, enum nft_registers): 64 bytes, addressed here as 16 registers of 4 bytes,
 * r0..r15. A value longer than 4 bytes takes the registers that follow. The kernel also has names for 4 registers of 16
 * bytes, NFT_REG_1..4; it prints r0, r4, r8, r12 as those, so they are what is sent.
 */
import type { AttributeDecoder, AttributeWriter } from '../attribute.js';

/** The number of a register of 4 bytes. */
export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;

export const r0 = 0;
export const r1 = 1;
export const r2 = 2;
export const r3 = 3;
export const r4 = 4;
export const r5 = 5;
export const r6 = 6;
export const r7 = 7;
export const r8 = 8;
export const r9 = 9;
export const r10 = 10;
export const r11 = 11;
export const r12 = 12;
export const r13 = 13;
export const r14 = 14;
export const r15 = 15;

/** The rule's verdict, as a destination of a verdict map lookup (NFT_REG_VERDICT). */
export const NFT_REG_VERDICT = 0;
const NFT_REG_1 = 1;
const NFT_REG_4 = 4;
const NFT_REG32_00 = 8;
const NFT_REG32_15 = 23;

/** The register after `bytes` bytes that begin at `register`. */
export function registerAfter(register: Register, bytes: number): Register {
  const next = register + ((bytes + 3) >> 2);
  if (next > 15) throw new RangeError(`${bytes} bytes at r${register} leave no register: there are 64 bytes`);
  return next as Register;
}

/** The kernel's number for a register, which is also what nft's debug output prints. */
export function registerNumber(register: Register): number {
  return register % 4 === 0 ? NFT_REG_1 + register / 4 : NFT_REG32_00 + register;
}

export function encodeRegister(writer: AttributeWriter, type: number, register: Register): void {
  writer.u32(type, registerNumber(register));
}

/** Reads a data register; one that doesn't exist is a decoding error. */
export function decodeRegister(attribute: AttributeDecoder): Register {
  const number = attribute.u32();
  if (number >= NFT_REG_1 && number <= NFT_REG_4) return ((number - NFT_REG_1) * 4) as Register;
  if (number >= NFT_REG32_00 && number <= NFT_REG32_15) return (number - NFT_REG32_00) as Register;
  attribute.fail(`register ${number} does not exist`);
  return 0;
}
