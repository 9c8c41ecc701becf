/** Writes to the API server's double, as controllers do. */
import http from 'node:http';

export type Json = Readonly<Record<string, unknown>>;

/** One connection, one request at a time. */
export class ApiClient {
  private readonly agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

  constructor(private readonly url: string) {}

  async create(path: string, object: Json): Promise<void> {
    await this.send('POST', path, object);
  }

  async replace(path: string, object: Json): Promise<void> {
    await this.send('PUT', path, object);
  }

  /** Many objects in one request (test/apiserver/README.md, Commands). */
  async putAll(objects: readonly Json[]): Promise<void> {
    await this.send('POST', '/control/put', objects);
  }

  private async send(method: string, path: string, body: unknown): Promise<void> {
    const headers = { 'content-type': 'application/json' };
    await new Promise<void>((resolve, reject) => {
      const request = http.request(this.url + path, { method, agent: this.agent, headers }, (answer) => {
        answer.resume();
        answer.once('end', () => {
          if (answer.statusCode === 200 || answer.statusCode === 201) resolve();
          else
            reject(
              new Error(`${method} ${path}: the API server's double answers ${String(answer.statusCode)}`),
            );
        });
      });
      request.once('error', reject);
      request.end(JSON.stringify(body));
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

export function slicePath(slice: Json): string {
  const { namespace, name } = slice['metadata'] as Json;
  return `/apis/discovery.k8s.io/v1/namespaces/${String(namespace)}/endpointslices/${String(name)}`;
}
