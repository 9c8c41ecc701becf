/**
 * Firewall marks of virtual servers. IPVS knows a virtual server by address and port, or by the mark of the packet; the
 * latter lets one address have two lists of endpoints, depending on who asks. A mark stands for one service port.
 *
 * IPVS compares all 32 bits, so a packet has such a mark only on its way through IPVS; before and behind, its own
 * (layout.ts).
 */

/** 'kp': twelve bits that say whose marks these are. The other twenty number the service ports. */
export const markPrefix = 0x6b70_0000;
export const markPrefixMask = 0xfff0_0000;
const maxNumber = 0x000f_ffff;

export function isOurMark(mark: number): boolean {
  return (mark & markPrefixMask) >>> 0 === markPrefix && (mark & maxNumber) !== 0;
}

export class Marks {
  private readonly taken = new Set<number>();
  private next = 1;

  /** @throws RangeError when all are taken, which is after a million service ports with externalTrafficPolicy Local */
  take(): number {
    if (this.taken.size === maxNumber) throw new RangeError(`all ${maxNumber} marks are in use`);
    while (this.taken.has(this.next)) this.next = (this.next % maxNumber) + 1;
    this.taken.add(this.next);
    return (markPrefix | this.next) >>> 0;
  }

  /** Takes over a mark that the kernel has. @returns false when it is not ours or taken */
  claim(mark: number): boolean {
    const number = mark & maxNumber;
    if (!isOurMark(mark) || this.taken.has(number)) return false;
    this.taken.add(number);
    return true;
  }

  release(mark: number): void {
    this.taken.delete(mark & maxNumber);
  }
}
