/**
 * /debug/pprof: where the time and the memory go. The paths are those of Go's net/http/pprof, as far as there is
 * something to show; what they return is V8's: profiles that Chrome's DevTools and VS Code open. Nothing runs unless it
 * is asked for.
 */
import { Session } from 'node:inspector';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Readable } from 'node:stream';
import { getHeapSnapshot } from 'node:v8';
import { guarded } from '../callbacks/guarded.js';
import { html, plain, type Answer, type Question, type Route } from './routes.js';

const base = '/debug/pprof/';
/** As in Go. */
const defaultSeconds = { profile: 30, heap: 30, trace: 1 };
const maxSeconds = 300;
/** Microseconds between two samples, as in Go's default of 100 per second, ten times finer. */
const samplingMicroseconds = 1000;
/** Mean bytes between two sampled allocations (V8's default is the same). */
const samplingBytes = 32 * 1024;
const traceCategories = ['v8', 'node.perf', 'node.fs.sync', 'node.fs.async', 'node.net.native', 'node.http'];

interface Profile {
  readonly name: string;
  readonly what: string;
  /** Of the file that a browser saves. */
  readonly file: string;
  /** Contains whatever is in memory, credentials for the API server included: only for clients on this machine. */
  readonly secret?: true;
  readonly take: (question: Question) => Promise<Answer['body']>;
}

const profiles: readonly Profile[] = [
  {
    name: 'profile',
    what: 'Processor time by function (V8 CPU profile, .cpuprofile). ?seconds=N, 30 when absent',
    file: 'kube-proxy.cpuprofile',
    take: (question) =>
      recorded(async (session) => {
        await session.send('Profiler.enable');
        await session.send('Profiler.setSamplingInterval', { interval: samplingMicroseconds });
        await session.send('Profiler.start');
        await pause(question, defaultSeconds.profile);
        return profileOf(await session.send('Profiler.stop'));
      }),
  },
  {
    name: 'heap',
    what: 'What was allocated meanwhile and is still in use, by function (V8 sampling heap profile, .heapprofile). ?seconds=N, 30 when absent',
    file: 'kube-proxy.heapprofile',
    take: (question) =>
      recorded(async (session) => {
        await session.send('HeapProfiler.enable');
        await session.send('HeapProfiler.startSampling', { samplingInterval: samplingBytes });
        await pause(question, defaultSeconds.heap);
        return profileOf(await session.send('HeapProfiler.stopSampling'));
      }),
  },
  {
    name: 'trace',
    what: 'What V8 and Node did (trace events, JSON for chrome://tracing and ui.perfetto.dev). ?seconds=N, 1 when absent',
    file: 'kube-proxy.trace.json',
    take: (question) =>
      recorded(async (session) => {
        const events: string[] = [];
        session.onTraceEvents((some) => {
          for (const event of some) events.push(JSON.stringify(event));
        });
        await session.send('NodeTracing.start', { traceConfig: { includedCategories: traceCategories } });
        await pause(question, defaultSeconds.trace);
        await session.stopTracing();
        return `{"traceEvents":[${events.join(',\n')}]}`;
      }),
  },
  {
    name: 'heapsnapshot',
    what: 'Every object on the heap (V8 heap snapshot, .heapsnapshot). The process stands still while it is taken, seconds for a large heap, and needs as much memory again. It contains the credentials for the API server: only clients on a loopback address get it',
    file: 'kube-proxy.heapsnapshot',
    secret: true,
    take: () => snapshot(),
  },
];

/** A second one would see the first one at work, and V8 has one of each only. */
let recording = false;

class BusyError extends Error {}
const busyMessage = 'another profile is being taken; try again when it is finished';

export function profilingRoutes(): Route[] {
  return [
    {
      path: base.slice(0, -1),
      answer: () => ({
        status: 302,
        headers: { Location: base, 'Content-Type': 'text/html; charset=utf-8' },
        body: `<a href="${base}">Found</a>.\n\n`,
      }),
    },
    { path: base, prefix: true, answer: ({ path }) => (path === base ? index() : unknown()) },
    // Names are in the profiles themselves.
    { path: `${base}symbol`, answer: () => ({ status: 200, headers: plain, body: 'num_symbols: 0\n' }) },
    ...profiles.map((profile) => ({
      path: base + profile.name,
      answer: (question: Question) => download(profile, question),
    })),
  ];
}

function index(): Answer {
  const items = profiles.map(({ name, what }) => `<li><a href="${name}">${name}</a>: ${what}</li>`);
  return {
    status: 200,
    headers: html,
    body: `<!DOCTYPE html><title>${base}</title><h1>${base}</h1>
<p>Profiles of this process. It runs on Node ${process.version}, so they are V8's and not Go's: open them with Chrome's
DevTools or VS Code.</p>
<ul>
${items.join('\n')}
</ul>
`,
  };
}

function unknown(): Answer {
  return { status: 404, headers: plain, body: 'Unknown profile\n' };
}

async function download({ name, file, take, secret }: Profile, question: Question): Promise<Answer> {
  if (secret === true && !isLoopback(question.peer))
    return {
      status: 403,
      headers: plain,
      body: `${name} contains credentials: it is given to clients on a loopback address only\n`,
    };
  const seconds = question.query.get('seconds');
  if (Number(seconds) > maxSeconds)
    return { status: 400, headers: plain, body: `seconds: ${seconds ?? ''}: at most ${maxSeconds}\n` };
  try {
    const body = await take(question);
    return {
      status: 200,
      headers: {
        'Content-Type': 'application/octet-stream',
        'Content-Disposition': `attachment; filename="${file}"`,
        'X-Content-Type-Options': 'nosniff',
      },
      body,
    };
  } catch (error) {
    if (!(error instanceof BusyError)) throw error;
    return { status: 500, headers: plain, body: `${error.message}\n` };
  }
}

/** As long as the query says, or until the client has gone. What is no positive number counts as absent, as in Go. */
async function pause({ query, signal }: Question, fallback: number): Promise<void> {
  const asked = Number(query.get('seconds'));
  await sleep((asked > 0 ? asked : fallback) * 1000, undefined, { signal }).catch(() => undefined);
}

class Recorder {
  private readonly session = new Session();

  constructor() {
    this.session.connect();
  }

  send(method: string, parameters: object = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.session.post(method, parameters, (error, result: unknown) => {
        if (error === null) resolve(result);
        else reject(new Error(`${method}: ${error.message}`));
      });
    });
  }

  onTraceEvents(take: (events: readonly object[]) => void): void {
    this.session.on('NodeTracing.dataCollected', ({ params }) => {
      take(params.value);
    });
  }

  async stopTracing(): Promise<void> {
    const complete = new Promise<void>((resolve) => {
      this.session.once('NodeTracing.tracingComplete', () => {
        resolve();
      });
    });
    await this.send('NodeTracing.stop');
    await complete;
  }

  close(): void {
    this.session.disconnect();
  }
}

/** An address as the socket has it; IPv4 over an IPv6 socket is ::ffff:127.0.0.1. */
function isLoopback(address: string | undefined): boolean {
  return address !== undefined && (address === '::1' || /^(::ffff:)?127\./.test(address));
}

/** One at a time, until it has been read or its reader has gone. @throws BusyError */
function snapshot(): Promise<Readable> {
  if (recording) return Promise.reject(new BusyError(busyMessage));
  recording = true;
  const content = getHeapSnapshot();
  content.once(
    'close',
    guarded('end a heap snapshot', () => {
      recording = false;
    }),
  );
  return Promise.resolve(content);
}

/** @throws BusyError */
async function recorded<T>(record: (recorder: Recorder) => Promise<T>): Promise<T> {
  if (recording) throw new BusyError(busyMessage);
  recording = true;
  const recorder = new Recorder();
  try {
    return await record(recorder);
  } finally {
    recorder.close();
    recording = false;
  }
}

/** Both profilers answer { profile: … }. */
function profileOf(result: unknown): string {
  if (typeof result !== 'object' || result === null || !('profile' in result))
    throw new Error('V8 returned no profile');
  return JSON.stringify(result.profile);
}
