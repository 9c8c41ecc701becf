/** A connection without a network: what is written at one end is read at the other. */
import { Duplex } from 'node:stream';

/** Pieces that have been handed over at all ends together: tells whether anything is going on. */
export const traffic = { pieces: 0 };

/** As much of a net.Socket as HTTP needs. */
export class MemorySocket extends Duplex {
  peer: MemorySocket | undefined;
  bytesRead = 0;
  readonly encrypted = false;
  readonly remoteAddress = '192.0.2.200';

  /** @param latencyMs how long a piece is on its way */
  constructor(private readonly latencyMs: number) {
    super({ allowHalfOpen: false });
    this.on('error', () => undefined);
  }

  override _read(): void {
    // What is there has been pushed.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const { peer } = this;
    if (peer === undefined || peer.destroyed) {
      done();
      return;
    }
    // Both ends must not share memory.
    const bytes = Buffer.from(chunk);
    this.soon(() => {
      if (peer.destroyed) return;
      traffic.pieces++;
      peer.bytesRead += bytes.length;
      peer.push(bytes);
    });
    // As into the buffer of a kernel, though one without limit: while a write lasts, Node can't end an HTTP/2 session.
    done();
  }

  override _final(done: () => void): void {
    const { peer } = this;
    this.soon(() => {
      traffic.pieces++;
      peer?.push(null);
      done();
    });
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { peer } = this;
    if (peer !== undefined && !peer.destroyed) {
      this.soon(() => {
        traffic.pieces++;
        peer.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }));
      });
    }
    done(error);
  }

  private soon(work: () => void): void {
    if (this.latencyMs > 0) setTimeout(work, this.latencyMs);
    else process.nextTick(work);
  }

  destroySoon(): void {
    this.end(() => this.destroy());
  }
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

/** Both ends of a new connection. */
export function memorySockets(latencyMs = 0): readonly [MemorySocket, MemorySocket] {
  const ends = [new MemorySocket(latencyMs), new MemorySocket(latencyMs)] as const;
  ends[0].peer = ends[1];
  ends[1].peer = ends[0];
  return ends;
}
