/**
 * Loaded into the program before anything else (NODE_OPTIONS=--import=…). From SIGUSR2 on it opens an empty file in each turn of
 * the event loop, in the folder that HOG_FOLDER names: whatever descriptor is closed becomes one of these files at once. A byte
 * in any of them was written by somebody who used a descriptor's number after close.
 */
import { openSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.env['HOG_FOLDER'];
const most = 300;
let count = 0;

function take(): void {
  if (folder === undefined || count === most) return;
  openSync(join(folder, `${process.pid}-${count++}`), 'wx+');
  setImmediate(take).unref();
}

process.once('SIGUSR2', take);
