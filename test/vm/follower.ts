/** Copies a file that another process writes, as it grows. */
import fs from 'node:fs';

export class Follower {
  private readonly buffer = Buffer.alloc(1 << 16);
  private offset = 0;

  constructor(
    private readonly file: string,
    private readonly to: { write(data: Buffer): unknown },
  ) {}

  /** Copies what is new. A file that is not there yet is as an empty one. */
  copy(): void {
    if (!fs.existsSync(this.file)) return;
    const descriptor = fs.openSync(this.file, 'r');
    try {
      for (;;) {
        const length = fs.readSync(descriptor, this.buffer, 0, this.buffer.length, this.offset);
        if (length === 0) return;
        this.offset += length;
        this.to.write(Buffer.from(this.buffer.subarray(0, length)));
      }
    } finally {
      fs.closeSync(descriptor);
    }
  }
}
