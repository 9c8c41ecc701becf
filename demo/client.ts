/**
 * The process in the client: requests at a steady pace, a new connection for each, and a report of how they ended ten
 * times a second. Argument: the URL.
 */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** Times are in milliseconds since the epoch. */
export interface Outcome {
  readonly startedAt: number;
  /** The name of the pod that answered. */
  readonly pod?: string;
  /** Why there was no answer, for example ECONNREFUSED. */
  readonly error?: string;
}

export interface Report {
  readonly outcomes: readonly Outcome[];
  /** Every request that was started before this time has been reported. */
  readonly completeUntil: number;
}

const workers = 8;
const pauseMs = 12;
const timeoutMs = 5000;
const reportEveryMs = 100;

/**
 * Each request takes the next source port, and none is used twice. A connection that the dead pod cut with a reset stays
 * in the kernel's connection tracking for 10 s (nf_conntrack_tcp_timeout_close), and a new one from the same port in
 * that time would follow it to the dead pod, whatever the rules say by then.
 */
const sourcePorts = { first: 20_000, last: 59_999 } as const;
let sourcePort: number = sourcePorts.first;

function nextSourcePort(): number {
  const port = sourcePort;
  sourcePort = port === sourcePorts.last ? sourcePorts.first : port + 1;
  return port;
}

/** Finer than Date.now(), on the same clock. */
const now = (): number => performance.timeOrigin + performance.now();

function ask(url: string): Promise<Omit<Outcome, 'startedAt'>> {
  return new Promise((resolve) => {
    const options = { agent: false, timeout: timeoutMs, localPort: nextSourcePort() };
    const call = request(url, options, (response) => {
      let pod = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (pod += text));
      response.on('end', () => {
        resolve(response.statusCode === 200 ? { pod } : { error: `HTTP ${response.statusCode ?? 0}` });
      });
      response.on('error', (error) => {
        resolve({ error: error.message });
      });
    });
    call.on('timeout', () => call.destroy(new Error('timeout')));
    call.on('error', (error: NodeJS.ErrnoException) => {
      resolve({ error: error.code ?? error.message });
    });
    call.end();
  });
}

const [url = ''] = process.argv.slice(2);
const underWay = new Set<number>();
let finished: Outcome[] = [];

async function work(): Promise<never> {
  for (;;) {
    const startedAt = now();
    underWay.add(startedAt);
    finished.push({ startedAt, ...(await ask(url)) });
    underWay.delete(startedAt);
    await sleep(pauseMs);
  }
}

process.once('disconnect', () => process.exit());
setInterval(() => {
  const report: Report = { outcomes: finished, completeUntil: Math.min(now(), ...underWay) };
  finished = [];
  process.send?.(report);
}, reportEveryMs);
for (let n = 0; n < workers; n++) void work();
