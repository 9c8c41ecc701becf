/** Where the proxy under test learns its objects: the API server of api-host.ts, or a folder of manifests. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ApiCall, ApiRequest } from './api-host.js';
import type { KubeObject } from './objects.js';
import { objectKey } from './objects.js';

export interface ObjectSource {
  /** Command line arguments that point the proxy at this source. */
  readonly arguments: readonly string[];
  /** Objects become visible in this order. */
  put(objects: readonly KubeObject[]): Promise<void>;
  remove(keys: readonly string[]): Promise<void>;
  /** Lists and watches of EndpointSlices get no answer while withheld. Not every source can do it. */
  withholdSlices?(withheld: boolean): Promise<void>;
  /** Bodies of the events that the proxy has posted. */
  events?(): Promise<readonly string[]>;
  stop(): Promise<void>;
}

const apiProgram = fileURLToPath(new URL('./api-host.js', import.meta.url));

export class ApiSource implements ObjectSource {
  private readonly child: ChildProcess;
  private readonly waiting = new Map<number, (value: unknown) => void>();
  readonly arguments: readonly string[];
  private nextId = 1;

  private constructor(child: ChildProcess, port: number) {
    this.child = child;
    this.arguments = ['--master', `http://127.0.0.1:${port}`];
  }

  /** Starts the server on 127.0.0.1 inside the namespace. */
  static async start(namespace: string): Promise<ApiSource> {
    const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, apiProgram], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.on('error', () => undefined);
    const lines = readline.createInterface({ input: child.stdout });
    return new Promise((resolve, reject) => {
      let source: ApiSource | undefined;
      child.on('exit', (status) => {
        reject(new Error(`the API server of the harness ended with status ${status ?? 'none'}`));
      });
      lines.on('line', (line) => {
        const { id, value } = JSON.parse(line) as { id: number; value: unknown };
        if (source === undefined) {
          source = new ApiSource(child, value as number);
          resolve(source);
          return;
        }
        source.waiting.get(id)?.(value);
        source.waiting.delete(id);
      });
    });
  }

  private request(request: ApiRequest): Promise<unknown> {
    const call: ApiCall = { id: this.nextId++, request };
    return new Promise((resolve) => {
      this.waiting.set(call.id, resolve);
      this.child.stdin!.write(`${JSON.stringify(call)}\n`);
    });
  }

  async put(objects: readonly KubeObject[]): Promise<void> {
    await this.request({ op: 'put', objects });
  }

  async remove(keys: readonly string[]): Promise<void> {
    await this.request({ op: 'delete', keys });
  }

  async withholdSlices(withheld: boolean): Promise<void> {
    await this.request({ op: 'withhold', slices: withheld });
  }

  async events(): Promise<readonly string[]> {
    return (await this.request({ op: 'events' })) as readonly string[];
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    await new Promise<void>((resolve) => {
      this.child.once('exit', () => {
        resolve();
      });
      this.child.stdin!.end();
    });
  }
}

/** One file per object; each appears whole, by rename. */
export class ManifestSource implements ObjectSource {
  private readonly folder: string;
  readonly arguments: readonly string[];

  constructor(folder: string) {
    this.folder = folder;
    this.arguments = ['--manifests', folder];
    fs.mkdirSync(folder, { recursive: true });
  }

  private file(key: string): string {
    return path.join(this.folder, `${key.replace(/[^a-zA-Z0-9.-]+/g, '_')}.json`);
  }

  put(objects: readonly KubeObject[]): Promise<void> {
    for (const object of objects) {
      const file = this.file(objectKey(object));
      fs.writeFileSync(`${file}.new`, JSON.stringify(object, null, 2));
      fs.renameSync(`${file}.new`, file);
    }
    return Promise.resolve();
  }

  remove(keys: readonly string[]): Promise<void> {
    for (const key of keys) fs.rmSync(this.file(key), { force: true });
    return Promise.resolve();
  }

  stop(): Promise<void> {
    fs.rmSync(this.folder, { recursive: true, force: true });
    return Promise.resolve();
  }
}
