/**
 * Gathers the chunks of a response body until a whole piece is there. A piece that spans many chunks is joined once,
 * not once per chunk.
 */
export class Inbox {
  private parts: Buffer[] = [];
  private size = 0;
  private needed = 1;

  /** Bytes that wait for their rest. */
  get waiting(): number {
    return this.size;
  }

  /** All waiting bytes and the chunk as one buffer, or undefined while that is less than what keep() asked for. */
  add(chunk: Buffer): Buffer | undefined {
    const size = this.size + chunk.length;
    if (size < this.needed) {
      this.parts.push(chunk);
      this.size = size;
      return undefined;
    }
    let whole = chunk;
    if (this.parts.length > 0) {
      this.parts.push(chunk);
      whole = Buffer.concat(this.parts, size);
      this.parts = [];
      this.size = 0;
    }
    this.needed = 1;
    return whole;
  }

  /** Put back what could not be used yet; add() answers again when at least `needed` bytes are there. */
  keep(rest: Buffer, needed: number): void {
    this.parts = rest.length > 0 ? [rest] : [];
    this.size = rest.length;
    this.needed = needed;
  }

  /** Add without asking whether a whole piece is there. */
  hold(chunk: Buffer): void {
    this.parts.push(chunk);
    this.size += chunk.length;
  }

  /** Everything that waits, in order; nothing waits afterwards. */
  take(): readonly Buffer[] {
    const parts = this.parts;
    this.parts = [];
    this.size = 0;
    this.needed = 1;
    return parts;
  }
}
