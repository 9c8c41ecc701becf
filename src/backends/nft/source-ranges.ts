/** Address arithmetic for source ranges: one exact hash key per range, the source masked once per length in use. */

/** Clears the host bits. @param address 4 or 16 bytes as latin1. */
export function maskAddress(address: string, prefixLength: number): string {
  const bytes = Buffer.from(address, 'latin1');
  prefixMask(bytes.length, prefixLength).forEach((mask, i) => {
    bytes[i] = (bytes[i] ?? 0) & mask;
  });
  return bytes.toString('latin1');
}

/** Netmask as bytes. @param size 4 or 16. */
export function prefixMask(size: number, prefixLength: number): Uint8Array {
  const mask = new Uint8Array(size);
  for (let i = 0; i < size; i++) {
    const bits = Math.min(8, Math.max(0, prefixLength - i * 8));
    mask[i] = (0xff << (8 - bits)) & 0xff;
  }
  return mask;
}
