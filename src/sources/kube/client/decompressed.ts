/** A gzip body as it was before. */
import type { Readable } from 'node:stream';
import zlib from 'node:zlib';
import { guarded } from '../../../callbacks/guarded.js';

/**
 * Ends or fails whenever `source` does. stream.pipeline() waits for ever for a source whose last bytes had come when it was
 * destroyed: that of a connection that is cut between the headers of an answer and the reading of its body.
 */
export function decompressed(source: Readable): Readable {
  const gunzip = zlib.createGunzip();
  const broken = (error?: Error): void => {
    gunzip.destroy(error ?? new Error('closed before its end'));
  };
  // Whoever reads hears of it from the iterator.
  gunzip.on('error', () => undefined);
  source.once('error', broken);
  source.once(
    'close',
    guarded('end a body', () => {
      if (!source.readableEnded) broken();
    }),
  );
  if (source.destroyed && !source.readableEnded) broken();
  else source.pipe(gunzip);
  return gunzip;
}
