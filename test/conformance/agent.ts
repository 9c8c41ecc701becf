/**
 * One process per network namespace: serves TCP, UDP and SCTP there, and sends probes from there. Controlled by the runner
 * with the lines of protocol.ts; ends when its standard input ends.
 *
 * The server's answer to a connection or datagram is one line: `place own-ip own-port peer-ip peer-port`.
 */
import dgram from 'node:dgram';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import readline from 'node:readline';
import type { Answer, Call, ListenAddress, Probe, ProbeResult, Replies, Request, Tally } from './protocol.js';
import { resultKey } from './protocol.js';
import { echo, forgetConnections, sendSctpInit, sendStraySegment } from './rawpackets.js';
import { connectSctp, listenSctp } from './sctp.js';
import { patiently } from '../patience.js';

const place = process.argv[2] ?? 'unnamed';
const servers = new Map<string, { close(): void }>();

function listenKey({ protocol, address, port }: ListenAddress): string {
  return `${protocol} ${address} ${port}`;
}

function greet(socket: net.Socket): void {
  socket.write(
    `${place} ${socket.localAddress ?? '?'} ${socket.localPort ?? 0} ${socket.remoteAddress ?? '?'} ${socket.remotePort ?? 0}\n`,
  );
}

async function listenToStreams({ protocol, address, port }: ListenAddress): Promise<{ close(): void }> {
  const open = new Set<net.Socket>();
  const serve = (socket: net.Socket): void => {
    open.add(socket);
    greet(socket);
    socket.on('data', () => {
      greet(socket);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
  };
  const server = await (protocol === 'SCTP'
    ? listenSctp({ address, port }, serve)
    : listenTcp({ address, port }, serve));
  return {
    close() {
      server.close();
      for (const socket of open) socket.resetAndDestroy();
    },
  };
}

function listenTcp(
  { address, port }: Pick<ListenAddress, 'address' | 'port'>,
  onConnection: (socket: net.Socket) => void,
): Promise<net.Server> {
  return new Promise((resolve, reject) => {
    const server = net.createServer(onConnection);
    server.once('error', reject);
    server.listen({ host: address, port, backlog: 4096 }, () => {
      resolve(server);
    });
  });
}

function listenUdp({ address, port }: ListenAddress): Promise<{ close(): void }> {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket({
      type: address.includes(':') ? 'udp6' : 'udp4',
      recvBufferSize: 1 << 20,
    });
    socket.on('message', (_, peer) => {
      socket.send(`${place} ${address} ${port} ${peer.address} ${peer.port}\n`, peer.port, peer.address);
    });
    socket.once('error', reject);
    socket.bind({ address, port, exclusive: true }, () => {
      socket.removeListener('error', reject);
      // A client that has gone away answers with port unreachable: of no interest to the server.
      socket.on('error', () => undefined);
      resolve(socket);
    });
  });
}

async function listen(sockets: readonly ListenAddress[]): Promise<void> {
  for (const socket of sockets) {
    const key = listenKey(socket);
    if (servers.has(key)) continue;
    servers.set(key, socket.protocol === 'UDP' ? await listenUdp(socket) : await listenToStreams(socket));
  }
}

function unlisten(sockets: readonly ListenAddress[]): void {
  for (const socket of sockets) {
    servers.get(listenKey(socket))?.close();
    servers.delete(listenKey(socket));
  }
}

function parseGreeting(line: string): ProbeResult {
  const [where = '', ip = '', port = '', peer = '', peerPort = ''] = line.trim().split(' ');
  return { kind: 'answered', place: where, by: `${ip} ${port}`, saw: `${peer} ${peerPort}` };
}

function errorCode(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}

function failure(error: Error): ProbeResult {
  const code = errorCode(error);
  return code === 'ECONNREFUSED' ? { kind: 'refused' } : { kind: 'failed', message: code };
}

/**
 * A process that had to wait for the processor finds its time up and its answer there at the same time: so it looks for
 * what has come (a connection, then its first line) before it calls that silence.
 */
function silentAfter(timeout: number, settle: (result: ProbeResult) => void): { cancel(): void } {
  let turns = 4;
  let cancelled = false;
  const look = (): void => {
    if (cancelled) return;
    if (turns-- === 0) settle({ kind: 'silent' });
    else setImmediate(look);
  };
  const timer = setTimeout(look, timeout);
  return {
    cancel() {
      cancelled = true;
      clearTimeout(timer);
    },
  };
}

/** An open conversation: a TCP connection, an SCTP association or a connected UDP socket. */
interface Conversation {
  readonly probe: Probe;
  readonly localPort: () => number;
  /** Sends once more and waits for the answer. */
  again(timeout: number): Promise<ProbeResult>;
  close(): void;
}

function connectTcp(probe: Probe): net.Socket {
  return net.connect({
    host: probe.target,
    port: probe.port,
    noDelay: true,
    ...(probe.source === '' ? {} : { localAddress: probe.source }),
    ...(probe.sourcePort === 0 ? {} : { localPort: probe.sourcePort }),
  });
}

function converseByStream(
  socket: net.Socket,
  probe: Probe,
): { first: Promise<ProbeResult>; conversation: Conversation } {
  let waiting: ((result: ProbeResult) => void) | undefined;
  let received = '';
  let ended: ProbeResult | undefined;
  const settle = (result: ProbeResult): void => {
    const resolve = waiting;
    waiting = undefined;
    resolve?.(result);
  };
  socket.on('data', (data) => {
    received += data.toString('latin1');
    if (!received.endsWith('\n')) return;
    const result = parseGreeting(received);
    received = '';
    settle(result);
  });
  socket.on('error', (error) => {
    ended = failure(error);
    settle(ended);
  });
  socket.on('close', () => {
    ended ??= { kind: 'failed', message: 'closed by the peer' };
    settle(ended);
  });
  const wait = (timeout: number): Promise<ProbeResult> =>
    new Promise((resolve) => {
      if (ended !== undefined) {
        resolve(ended);
        return;
      }
      const silence = silentAfter(timeout, settle);
      waiting = (result) => {
        silence.cancel();
        resolve(result);
      };
    });
  return {
    first: wait(probe.timeout),
    conversation: {
      probe,
      localPort: () => socket.localPort ?? 0,
      again(timeout) {
        const answer = wait(timeout);
        socket.write('again\n');
        return answer;
      },
      // A reset leaves no TIME_WAIT behind: thousands of connections from one address do not run out of ports.
      close() {
        socket.resetAndDestroy();
      },
    },
  };
}

/** How long after a refused send (EPERM) the matching ECONNREFUSED may take to show that it was a REJECT. */
const pendingErrorWait = patiently(60);

function converseUdp(probe: Probe): { first: Promise<ProbeResult>; conversation: Conversation } {
  const socket = dgram.createSocket(probe.target.includes(':') ? 'udp6' : 'udp4');
  let waiting: ((result: ProbeResult) => void) | undefined;
  const settle = (result: ProbeResult): void => {
    const resolve = waiting;
    waiting = undefined;
    resolve?.(result);
  };
  const onError = (error: Error): void => {
    // A process of the node that is refused on the output path gets EPERM for REJECT and DROP alike; only a REJECT
    // also leaves ECONNREFUSED on the socket.
    if (errorCode(error) === 'EPERM') setTimeout(settle, pendingErrorWait, { kind: 'silent' });
    else settle(failure(error));
  };
  socket.on('error', onError);
  socket.on('message', (data) => {
    settle(parseGreeting(data.toString('latin1')));
  });
  const wait = (timeout: number): Promise<ProbeResult> =>
    new Promise((resolve) => {
      const silence = silentAfter(timeout, settle);
      waiting = (result) => {
        silence.cancel();
        resolve(result);
      };
    });
  const send = (): void => {
    socket.send('?\n', (error) => {
      if (error !== null) onError(error);
    });
  };
  const first = wait(probe.timeout);
  const start = (): void => {
    socket.connect(probe.port, probe.target, ((error?: Error) => {
      if (error) onError(error);
      else send();
    }) as () => void);
  };
  if (probe.source === '' && probe.sourcePort === 0) start();
  else {
    const address = probe.source === '' ? {} : { address: probe.source };
    socket.bind({ ...address, port: probe.sourcePort, exclusive: true }, start);
  }
  return {
    first,
    conversation: {
      probe,
      localPort: () => socket.address().port,
      again(timeout) {
        const answer = wait(timeout);
        send();
        return answer;
      },
      close() {
        socket.removeAllListeners('error');
        socket.on('error', () => undefined);
        socket.close();
      },
    },
  };
}

function converse(probe: Probe): { first: Promise<ProbeResult>; conversation: Conversation } {
  switch (probe.protocol) {
    case 'TCP':
      return converseByStream(connectTcp(probe), probe);
    case 'UDP':
      return converseUdp(probe);
    case 'SCTP': {
      const { source, sourcePort: port, target } = probe;
      const own = source === '' ? undefined : { address: source, port };
      return converseByStream(connectSctp(own, { address: target, port: probe.port }), probe);
    }
  }
}

async function ask(probe: Probe): Promise<ProbeResult> {
  const { first, conversation } = converse(probe);
  const result = await first;
  conversation.close();
  return result;
}

class Tallies {
  private readonly byKey = new Map<string, { result: ProbeResult; count: number }>();

  add(result: ProbeResult): void {
    const key = resultKey(result);
    const entry = this.byKey.get(key);
    if (entry === undefined) this.byKey.set(key, { result, count: 1 });
    else entry.count++;
  }

  list(): readonly Tally[] {
    return [...this.byKey.values()];
  }
}

async function tally(request: Extract<Request, { op: 'tally' }>): Promise<readonly Tally[]> {
  const tallies = new Tallies();
  let started = 0;
  const lane = async (): Promise<void> => {
    while (started < request.count) {
      const source = request.sources[started % Math.max(1, request.sources.length)] ?? request.probe.source;
      started++;
      tallies.add(await ask({ ...request.probe, source }));
    }
  };
  await Promise.all(Array.from({ length: request.concurrency }, lane));
  return tallies.list();
}

async function until({
  probe,
  answeredBy,
  patience,
}: Extract<Request, { op: 'until' }>): Promise<Replies['until']> {
  const deadline = Date.now() + patience;
  for (;;) {
    const last = await ask(probe);
    if (last.kind === 'answered' && last.by === answeredBy) return { reached: true, last };
    if (Date.now() >= deadline) return { reached: false, last };
    await new Promise((resolve) => setTimeout(resolve, patiently(5)));
  }
}

const held = new Map<string, Conversation>();

async function hold(id: string, probe: Probe): Promise<ProbeResult> {
  held.get(id)?.close();
  const { first, conversation } = converse(probe);
  held.set(id, conversation);
  return first;
}

function heldConversation(id: string): Conversation {
  const conversation = held.get(id);
  if (conversation === undefined) throw new Error(`no conversation named ${id} is held`);
  return conversation;
}

const steady = new Map<string, { stop: boolean; attempts: number; tallies: Tallies; done: Promise<void> }>();

function startSteady({ id, probe, interval }: Extract<Request, { op: 'steady' }>): void {
  const state = { stop: false, attempts: 0, tallies: new Tallies(), done: Promise.resolve() };
  const run = async (): Promise<void> => {
    const open: Promise<void>[] = [];
    while (!state.stop) {
      state.attempts++;
      open.push(
        ask(probe).then((result) => {
          state.tallies.add(result);
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, interval));
    }
    await Promise.all(open);
  };
  state.done = run();
  steady.set(id, state);
}

async function endSteady(id: string): Promise<Replies['steady-end']> {
  const state = steady.get(id);
  if (state === undefined) throw new Error(`no steady probe named ${id} is running`);
  state.stop = true;
  await state.done;
  steady.delete(id);
  return { attempts: state.attempts, tallies: state.tallies.list() };
}

function httpRequest(request: Extract<Request, { op: 'http' }>): Promise<Replies['http']> {
  return new Promise((resolve) => {
    const outgoing = http.request(
      {
        host: request.target,
        port: request.port,
        path: request.path,
        method: request.method,
        agent: false,
        timeout: request.timeout,
        ...(request.source === '' ? {} : { localAddress: request.source }),
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (body += chunk));
        response.on('end', () => {
          const headers = Object.fromEntries(
            Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
          );
          resolve({ status: response.statusCode ?? 0, headers, body });
        });
      },
    );
    outgoing.on('timeout', () => {
      resolve({ error: 'silent' });
      outgoing.destroy();
    });
    outgoing.on('error', (error) => {
      resolve({ error: errorCode(error) === 'ECONNREFUSED' ? 'refused' : errorCode(error) });
    });
    outgoing.end();
  });
}

async function carryOut(request: Request): Promise<Replies[Request['op']]> {
  switch (request.op) {
    case 'sysctl':
      for (const [name, value] of Object.entries(request.values))
        fs.writeFileSync(`/proc/sys/${name}`, value);
      return null;
    case 'listen':
      await listen(request.sockets);
      return null;
    case 'unlisten':
      unlisten(request.sockets);
      return null;
    case 'probe':
      return Promise.all(request.probes.map(ask));
    case 'tally':
      return tally(request);
    case 'until':
      return until(request);
    case 'hold':
      return hold(request.id, request.probe);
    case 'again':
      return heldConversation(request.id).again(request.timeout);
    case 'release':
      held.get(request.id)?.close();
      held.delete(request.id);
      return null;
    case 'steady':
      startSteady(request);
      return null;
    case 'steady-end':
      return endSteady(request.id);
    case 'http':
      return httpRequest(request);
    case 'echo':
      return echo(request.source, request.target, request.timeout);
    case 'sctp-init':
      sendSctpInit({ address: request.source, port: 36412 }, { address: request.target, port: request.port });
      return null;
    case 'forget-connections':
      forgetConnections();
      return null;
    case 'stray-segment': {
      const { probe, localPort } = heldConversation(request.id);
      sendStraySegment(
        { address: probe.source, port: localPort() },
        { address: probe.target, port: probe.port },
      );
      return null;
    }
  }
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const { id, request } = JSON.parse(line) as Call;
  const answer = (message: Answer): void => {
    process.stdout.write(`${JSON.stringify(message)}\n`);
  };
  carryOut(request).then(
    (value) => {
      answer({ id, value });
    },
    (error: unknown) => {
      answer({ id, error: error instanceof Error ? error.message : String(error) });
    },
  );
});
lines.on('close', () => process.exit(0));
