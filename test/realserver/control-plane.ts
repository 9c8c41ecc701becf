/**
 * A real kube-apiserver on a real etcd, on loopback of this process's network namespace, with the means to hurt them: each can be
 * killed, stopped and started, and the database set back to a copy.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { cpSync, mkdirSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CertificateSet } from '../apiserver/certificates.js';
import { patiently } from '../patience.js';
import type { Binaries } from './binaries.js';

export const apiPort = 6443;
const etcdUrl = 'http://127.0.0.1:2379';
const peerUrl = 'http://127.0.0.1:2380';

/** Bearer tokens of the static accounts. */
export const proxyToken = 'token-of-kube-proxy';
const adminToken = 'token-of-an-administrator';

export type ApiObject = Readonly<Record<string, unknown>> & {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
};

/** What the server has been asked, as its audit log tells it. */
export interface Asked {
  readonly verb: string;
  readonly uri: URL;
}

export class ControlPlane {
  private readonly agent = new https.Agent({ keepAlive: true, maxSockets: 32 });
  private etcd: ChildProcess | undefined;
  private apiserver: ChildProcess | undefined;
  private readonly data: string;
  private readonly copy: string;
  private readonly audit: string;

  /**
   * @param folder for all files; the caller removes it
   * @param advertised address of default/kubernetes's endpoint, no loopback one
   */
  constructor(
    private readonly binaries: Binaries,
    private readonly folder: string,
    private readonly certificates: CertificateSet,
    private readonly advertised: string,
  ) {
    this.data = join(folder, 'etcd');
    this.copy = join(folder, 'etcd-copy');
    this.audit = join(folder, 'audit.log');
    const files = {
      'server.crt': certificates.serverCertificate,
      'server.key': certificates.serverKey,
      'ca.crt': certificates.authority,
      'tokens.csv': `${adminToken},admin,1,"system:masters"\n${proxyToken},system:kube-proxy,2\n`,
      'audit.json': JSON.stringify({
        apiVersion: 'audit.k8s.io/v1',
        kind: 'Policy',
        omitStages: ['ResponseStarted', 'ResponseComplete', 'Panic'],
        rules: [{ level: 'Metadata', users: ['system:kube-proxy'] }, { level: 'None' }],
      }),
    };
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  }

  // ---------------------------------------------------------------- processes

  startEtcd(): void {
    mkdirSync(this.data, { recursive: true, mode: 0o700 });
    this.etcd = this.run(this.binaries.etcd, 'etcd.log', [
      `--data-dir=${this.data}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      '--log-level=error',
    ]);
  }

  startApiserver(): void {
    const file = (name: string): string => join(this.folder, name);
    this.apiserver = this.run(this.binaries.apiserver, 'apiserver.log', [
      `--etcd-servers=${etcdUrl}`,
      '--etcd-compaction-interval=0',
      '--bind-address=127.0.0.1',
      `--secure-port=${apiPort}`,
      `--advertise-address=${this.advertised}`,
      `--tls-cert-file=${file('server.crt')}`,
      `--tls-private-key-file=${file('server.key')}`,
      `--client-ca-file=${file('ca.crt')}`,
      `--token-auth-file=${file('tokens.csv')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.177.0.0/16',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${file('server.key')}`,
      `--service-account-signing-key-file=${file('server.key')}`,
      '--disable-admission-plugins=ServiceAccount',
      `--audit-policy-file=${file('audit.json')}`,
      `--audit-log-path=${this.audit}`,
    ]);
  }

  private run(program: string, log: string, options: readonly string[]): ChildProcess {
    const output = openSync(join(this.folder, log), 'a');
    try {
      return spawn(program, options, { stdio: ['ignore', output, output] });
    } finally {
      closeSync(output);
    }
  }

  async killApiserver(): Promise<void> {
    await end(this.apiserver, 'SIGKILL');
  }

  /** With both of them gone the database is a folder that can be copied. */
  async stopAll(): Promise<void> {
    await this.killApiserver();
    await end(this.etcd, 'SIGTERM');
  }

  startAll(): void {
    this.startEtcd();
    this.startApiserver();
  }

  pauseEtcd(on: boolean): void {
    this.etcd?.kill(on ? 'SIGSTOP' : 'SIGCONT');
  }

  backup(): void {
    rmSync(this.copy, { recursive: true, force: true });
    cpSync(this.data, this.copy, { recursive: true });
  }

  restore(): void {
    rmSync(this.data, { recursive: true });
    cpSync(this.copy, this.data, { recursive: true });
  }

  /** As a new disk does. */
  empty(): void {
    rmSync(this.data, { recursive: true });
  }

  async close(): Promise<void> {
    this.pauseEtcd(false);
    await this.stopAll();
    this.agent.destroy();
  }

  /** The last lines of both logs, for a failure's message. */
  logs(): string {
    return ['etcd.log', 'apiserver.log']
      .map((name) => readFileSync(join(this.folder, name), 'utf8').split('\n').slice(-15).join('\n'))
      .join('\n');
  }

  // ---------------------------------------------------------------- requests

  /** Waits until it says that it is ready. */
  async ready(): Promise<void> {
    const deadline = performance.now() + patiently(90_000);
    for (;;) {
      const status = await this.request('GET', '/readyz').then(
        (answer) => answer.status,
        () => 0,
      );
      if (status === 200) return;
      if (performance.now() > deadline) throw new Error(`kube-apiserver is not ready:\n${this.logs()}`);
      await sleep(20);
    }
  }

  /** Creates or replaces. @throws Error when the server does not take it */
  async put(object: ApiObject): Promise<void> {
    const path = pathOf(object);
    const existing = await this.request('GET', `${path}/${object.metadata.name}`);
    if (existing.status === 404) {
      await this.must('POST', path, object);
      return;
    }
    const { metadata } = JSON.parse(existing.body) as { metadata: { resourceVersion: string } };
    await this.must('PUT', `${path}/${object.metadata.name}`, {
      ...object,
      metadata: { ...object.metadata, resourceVersion: metadata.resourceVersion },
    });
  }

  /** It does not exist yet. */
  async create(object: ApiObject): Promise<void> {
    await this.must('POST', pathOf(object), object);
  }

  async delete(object: ApiObject): Promise<void> {
    await this.must('DELETE', `${pathOf(object)}/${object.metadata.name}`);
  }

  /** The version of everything. */
  async version(): Promise<number> {
    const { body } = await this.must('GET', '/api/v1/services?limit=1');
    return Number((JSON.parse(body) as { metadata: { resourceVersion: string } }).metadata.resourceVersion);
  }

  /** Bytes of an uncompressed list in protobuf. */
  async listBytes(path: string): Promise<number> {
    const { bytes } = await this.must('GET', path, undefined, 'application/vnd.kubernetes.protobuf');
    return bytes;
  }

  private async must(
    method: string,
    path: string,
    body?: object,
    accept?: string,
  ): Promise<{ readonly body: string; readonly bytes: number }> {
    const answer = await this.request(method, path, body, accept);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
    return answer;
  }

  private request(
    method: string,
    path: string,
    body?: object,
    accept = 'application/json',
  ): Promise<{ readonly status: number; readonly body: string; readonly bytes: number }> {
    return new Promise((resolve, reject) => {
      const request = https.request(
        {
          agent: this.agent,
          host: '127.0.0.1',
          port: apiPort,
          ca: this.certificates.authority,
          method,
          path,
          headers: {
            accept,
            authorization: `Bearer ${adminToken}`,
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          timeout: 20_000,
        },
        (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.on('error', reject);
          response.on('end', () => {
            const whole = Buffer.concat(parts);
            resolve({ status: response.statusCode ?? 0, body: whole.toString(), bytes: whole.length });
          });
        },
      );
      request.on('timeout', () => request.destroy(new Error('no answer')));
      request.on('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Makes etcd forget all versions but the newest. */
  async compact(): Promise<void> {
    const post = async (path: string, body: object): Promise<string> =>
      await new Promise((resolve, reject) => {
        const request = http.request(`${etcdUrl}${path}`, { method: 'POST' }, (response) => {
          let text = '';
          response.on('data', (part: Buffer) => (text += part.toString()));
          response.on('end', () => {
            if (response.statusCode === 200) resolve(text);
            else reject(new Error(`${path}: ${text}`));
          });
        });
        request.on('error', reject);
        request.end(JSON.stringify(body));
      });
    // etcd's gateway for JSON: keys are base64, numbers are texts.
    const { header } = JSON.parse(await post('/v3/kv/range', { key: 'AA==' })) as {
      header: { revision: string };
    };
    await post('/v3/kv/compaction', { revision: header.revision, physical: true });
  }

  /** What kube-proxy has asked for since `bytes` of the log. */
  asked(since: number): Asked[] {
    return readFileSync(this.audit)
      .subarray(since)
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { verb: string; requestURI: string })
      .map(({ verb, requestURI }) => ({ verb, uri: new URL(requestURI, 'https://server') }));
  }

  /** For asked(). */
  auditBytes(): number {
    return readFileSync(this.audit).length;
  }
}

const folders: Readonly<Record<string, string>> = {
  Node: '/api/v1',
  Namespace: '/api/v1',
  Service: '/api/v1',
  EndpointSlice: '/apis/discovery.k8s.io/v1',
};

function pathOf({ kind, metadata }: ApiObject): string {
  const name = String(kind);
  const namespace = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`;
  return `${folders[name] ?? ''}${namespace}/${name.toLowerCase()}s`;
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await ended;
}
