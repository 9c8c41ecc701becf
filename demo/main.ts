/**
 * `make demo`: real packets, balanced by the kernel, on any Linux machine and without a cluster. Called without
 * arguments it calls itself again inside namespaces of its own, and there it tells its story.
 */
import { fileURLToPath } from 'node:url';
import { Display } from './display.js';
import { DemoError } from './errors.js';
import { endWithParent, runInside } from './sandbox.js';
import { tell } from './story.js';

const insideArgument = 'inside';

function complain(error: unknown): void {
  const text =
    error instanceof DemoError ? error.message : error instanceof Error ? error.stack : String(error);
  process.stderr.write(`demo: ${text}\n`);
}

async function inside(): Promise<number> {
  const { stdout } = process;
  // A dumb terminal can not move its cursor.
  const isTTY = stdout.isTTY && process.env['TERM'] !== 'dumb';
  const display = new Display({
    isTTY,
    get columns() {
      return isTTY ? stdout.columns : 80;
    },
    write: (text) => void stdout.write(text),
  });
  // However this ends.
  process.on('exit', () => {
    display.close();
  });
  endWithParent();
  try {
    await tell(display);
    return 0;
  } catch (error) {
    complain(error);
    return 1;
  }
}

async function outside(): Promise<number> {
  try {
    return await runInside(fileURLToPath(import.meta.url), [insideArgument]);
  } catch (error) {
    complain(error);
    return 1;
  }
}

process.exit(process.argv[2] === insideArgument ? await inside() : await outside());
