/** Where the bytes of an answer go, and what happens to them on the way. */
import { constants, createGzip } from 'node:zlib';
import type { BodyFault } from './faults.js';

export interface Output {
  write(bytes: Buffer): void;
  /** In good order. */
  end(): void;
  /** Break the connection. */
  destroy(): void;
}

/** @param later so that what was written before arrives before the connection breaks */
export function faulty(output: Output, fault: BodyFault, later = 5): Output {
  if (fault.kind === 'drip') return drip(output, fault.bytes, fault.everyMs);
  let left = fault.after;
  let over = false;
  return {
    write: (bytes) => {
      if (over) return;
      if (bytes.length < left) {
        left -= bytes.length;
        output.write(bytes);
        return;
      }
      const right = bytes.subarray(0, left);
      if (right.length > 0) output.write(right);
      if (fault.kind === 'garbage') {
        const wrong = Buffer.alloc(fault.count, 0xff);
        output.write(wrong);
        output.write(bytes.subarray(Math.min(bytes.length, left + fault.count)));
        // The rest is as it should be.
        left = Infinity;
        return;
      }
      over = true;
      if (fault.kind === 'short') output.end();
      if (fault.kind === 'reset') {
        setTimeout(() => {
          output.destroy();
        }, later);
      }
    },
    end: () => {
      if (!over) output.end();
    },
    destroy: () => {
      over = true;
      output.destroy();
    },
  };
}

function drip(output: Output, size: number, everyMs: number): Output {
  let waiting: Buffer = Buffer.alloc(0);
  let ended = false;
  let timer: NodeJS.Timeout | undefined;
  const drop = (): void => {
    timer = undefined;
    if (waiting.length > 0) output.write(waiting.subarray(0, size));
    waiting = waiting.subarray(size);
    if (waiting.length > 0) timer = setTimeout(drop, everyMs);
    else if (ended) output.end();
  };
  return {
    write: (bytes) => {
      waiting = Buffer.concat([waiting, bytes]);
      timer ??= setTimeout(drop, everyMs);
    },
    end: () => {
      ended = true;
      timer ??= setTimeout(drop, everyMs);
    },
    destroy: () => {
      clearTimeout(timer);
      waiting = Buffer.alloc(0);
      output.destroy();
    },
  };
}

/** As gzip; what was written can be read at once. */
export function compressed(output: Output): Output {
  const gzip = createGzip({ level: 1, flush: constants.Z_SYNC_FLUSH });
  let destroyed = false;
  gzip.on('data', (bytes: Buffer) => {
    if (!destroyed) output.write(bytes);
  });
  gzip.once('end', () => {
    if (!destroyed) output.end();
  });
  return {
    write: (bytes) => {
      if (!destroyed) gzip.write(bytes);
    },
    end: () => {
      gzip.end();
    },
    destroy: () => {
      destroyed = true;
      gzip.destroy();
      output.destroy();
    },
  };
}
