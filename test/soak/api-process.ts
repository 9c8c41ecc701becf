/** The double of the API server as a process of its own, and the commands that the soak gives it. */
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Strike } from '../apiserver/strikes.js';
import type { Fault } from '../apiserver/faults.js';
import { patiently } from '../patience.js';
import { start, type Child } from '../process/node.js';
import type { Change } from './world.js';

const doubleProgram = fileURLToPath(new URL('../apiserver/main.js', import.meta.url));

export class ApiError extends Error {
  readonly code = 'ERR_SOAK_API';
}

export class ApiProcess {
  private readonly agent: https.Agent;

  private constructor(
    private readonly child: Child,
    readonly port: number,
    folder: string,
  ) {
    const file = (name: string): Buffer => readFileSync(join(folder, name));
    const credentials = { ca: file('ca.crt'), cert: file('client.crt'), key: file('client.key') };
    this.agent = new https.Agent({ ...credentials, keepAlive: true, maxSockets: 1 });
  }

  /**
   * In the network namespace of the calling thread, on all its addresses, with TLS and HTTP/2.
   * @param folder receives ca.crt, client.crt and client.key
   */
  static async start(folder: string): Promise<ApiProcess> {
    const options = ['--host', '0.0.0.0', '--tls', folder, '--client-certificates', '--bookmark-ms', '5000'];
    const child = start(process.execPath, doubleProgram, ...options);
    try {
      await child.waitFor(/^https:\S+:\d+\n/, 30_000);
      const port = Number(/:(\d+)\n/.exec(child.output)?.[1]);
      return new ApiProcess(child, port, folder);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** In this order. Objects that follow each other go in one request. */
  async write(changes: readonly Change[]): Promise<void> {
    let objects: unknown[] = [];
    const flush = async (): Promise<void> => {
      if (objects.length > 0) await this.command('put', objects);
      objects = [];
    };
    for (const change of changes) {
      if ('put' in change) {
        objects.push(change.put);
        continue;
      }
      await flush();
      const { kind, key } = change.remove;
      const [name = '', namespace = ''] = key.split('/').reverse();
      await this.command(`delete?kind=${kind}&namespace=${namespace}&name=${name}`);
    }
    await flush();
  }

  /** Many strikes cut the connection that orders them: then there is no answer. */
  async strike(what: Strike): Promise<void> {
    try {
      await this.request('strike', JSON.stringify(what));
    } catch (error) {
      if (error instanceof ApiError) throw error;
    }
  }

  async arm(fault: Fault, count: number, match: string): Promise<void> {
    await this.command(`arm?count=${count}&match=${encodeURIComponent(match)}`, fault);
  }

  async heal(): Promise<void> {
    await this.command('heal');
  }

  async set(settings: string): Promise<void> {
    await this.command(`set?${settings}`);
  }

  async stop(): Promise<void> {
    this.agent.destroy();
    this.child.kill('SIGTERM');
    await this.child.end(2000);
  }

  /** Until it is taken: troubles that were ordered meet this client as well. */
  private async command(path: string, body?: unknown): Promise<void> {
    const deadline = Date.now() + patiently(60_000);
    for (;;) {
      try {
        await this.request(path, body === undefined ? '' : JSON.stringify(body));
        return;
      } catch (error) {
        if (error instanceof ApiError || Date.now() > deadline) {
          throw new ApiError(`the API server's double does not take '${path}'`, { cause: error });
        }
        await sleep(20);
      }
    }
  }

  private request(path: string, body: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const options = { method: 'POST', agent: this.agent, timeout: patiently(10_000) };
      const request = https.request(`https://127.0.0.1:${this.port}/control/${path}`, options, (response) => {
        let answer = '';
        response.on('data', (chunk: Buffer) => (answer += chunk.toString()));
        response.on('error', reject);
        response.on('end', () => {
          if (response.statusCode === 200) resolve();
          else reject(new ApiError(`${path}: ${response.statusCode} ${answer}`));
        });
      });
      request.on('timeout', () => request.destroy(new Error('no answer')));
      request.on('error', reject);
      request.end(body);
    });
  }
}
