/** The runner's handle on one agent process. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Answer, Call, Replies, Request } from './protocol.js';
import { patiently } from '../patience.js';

const agentProgram = fileURLToPath(new URL('./agent.js', import.meta.url));

export class AgentError extends Error {
  readonly code = 'ERR_CONFORMANCE_AGENT';
}

export class NamespaceAgent {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<
    number,
    { resolve: (value: Replies[keyof Replies]) => void; reject: (error: Error) => void }
  >();
  private readonly label: string;
  private nextId = 1;
  private ended = false;

  /** `namespace` is the name for `ip netns`, `place` what the agent calls itself in its answers. */
  constructor(namespace: string, place: string) {
    this.label = place;
    this.child = spawn('ip', ['netns', 'exec', namespace, process.execPath, agentProgram, place], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = readline.createInterface({ input: this.child.stdout! });
    lines.on('line', (line) => {
      const answer = JSON.parse(line) as Answer;
      const waiting = this.waiting.get(answer.id);
      this.waiting.delete(answer.id);
      if ('error' in answer) waiting?.reject(new AgentError(`agent in ${place}: ${answer.error}`));
      else waiting?.resolve(answer.value);
    });
    this.child.stdin!.on('error', () => undefined);
    this.child.on('exit', (code, signal) => {
      this.ended = true;
      for (const { reject } of this.waiting.values()) {
        reject(new AgentError(`agent in ${place} ended (${signal ?? code ?? 'unknown'}) before it answered`));
      }
      this.waiting.clear();
    });
  }

  request<Op extends Request['op']>(request: Extract<Request, { op: Op }>): Promise<Replies[Op]> {
    if (this.ended) return Promise.reject(new AgentError(`agent in ${this.label} has ended`));
    const call: Call = { id: this.nextId++, request };
    return new Promise((resolve, reject) => {
      this.waiting.set(call.id, { resolve: resolve as (value: Replies[keyof Replies]) => void, reject });
      this.child.stdin!.write(`${JSON.stringify(call)}\n`);
    });
  }

  async stop(): Promise<void> {
    if (this.ended) return;
    await new Promise<void>((resolve) => {
      this.child.once('exit', () => {
        resolve();
      });
      this.child.stdin!.end();
      setTimeout(() => this.child.kill('SIGKILL'), patiently(1000)).unref();
    });
  }
}
