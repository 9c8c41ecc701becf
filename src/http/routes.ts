/** From a table of paths to answers: what all servers of this program have in common. */
import type { IncomingHttpHeaders, IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { pipeline, type Readable } from 'node:stream';
import { errorText } from '../log/logger.js';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** A stream is sent as it comes, without Content-Length. */
  readonly body: string | Buffer | Readable;
}

export interface Question {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** Address of the client; undefined: it has gone. */
  readonly peer: string | undefined;
  /** The body, if it is not longer than `maxBytes`. @throws Error */
  readonly read: (maxBytes: number) => Promise<string>;
  /** The client has gone. */
  readonly signal: AbortSignal;
}

export interface Route {
  /** Matched exactly; one that ends with '/' and is a prefix matches everything below it as well. */
  readonly path: string;
  readonly prefix?: boolean;
  /** Named by /statusz. */
  readonly listed?: boolean;
  readonly answer: (question: Question) => Answer | Promise<Answer>;
}

const nosniff = { 'X-Content-Type-Options': 'nosniff' };
export const plain = { 'Content-Type': 'text/plain; charset=utf-8', ...nosniff };
export const html = { 'Content-Type': 'text/html; charset=utf-8', ...nosniff };
export const json = { 'Content-Type': 'application/json', ...nosniff };

export const notFound: Answer = { status: 404, headers: plain, body: '404 page not found\n' };

/** Every method is served; HEAD gets the headers only. */
export function serve(routes: readonly Route[]): RequestListener {
  const exact = new Map(routes.map((route) => [route.path, route]));
  const prefixes = routes
    .filter(({ prefix }) => prefix === true)
    .sort((a, b) => b.path.length - a.path.length);
  return (request, response) => {
    const question = ask(request, response);
    const route = exact.get(question.path) ?? prefixes.find(({ path }) => question.path.startsWith(path));
    reply(question, route, response).then(
      () => {
        // What nobody wanted to read.
        request.resume();
      },
      () => response.destroy(),
    );
  };
}

function ask(request: IncomingMessage, response: ServerResponse): Question {
  const [path = '/', query = ''] = (request.url ?? '/').split(/\?(.*)/s);
  const gone = new AbortController();
  response.once('close', () => {
    gone.abort();
  });
  return {
    method: request.method ?? 'GET',
    path,
    query: new URLSearchParams(query),
    headers: request.headers,
    peer: request.socket.remoteAddress,
    read: (maxBytes) => readBody(request, maxBytes),
    signal: gone.signal,
  };
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw new Error(`the body is longer than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function reply(question: Question, route: Route | undefined, response: ServerResponse): Promise<void> {
  let answer: Answer;
  try {
    answer = (await route?.answer(question)) ?? notFound;
  } catch (error) {
    answer = { status: 500, headers: plain, body: `${errorText(error)}\n` };
  }
  const { status, headers, body } = answer;
  if (typeof body === 'string' || Buffer.isBuffer(body)) {
    response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
    response.end(question.method === 'HEAD' ? undefined : body);
    return;
  }
  response.writeHead(status, headers);
  if (question.method === 'HEAD') {
    body.destroy();
    response.end();
  } else {
    // A client that goes away is no failure of ours.
    pipeline(body, response, () => undefined);
  }
}
