/**
 * Which API server to talk to, and as whom: a kubeconfig file, the service account of a pod, or a bare --master URL.
 * Selection rules: config.md section 9 of the behaviour notes (same as upstream's).
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Logger } from '../../../log/logger.js';
import { KubeError } from '../errors.js';
import { ExecPlugin, type PluginCredential } from './exec-plugin.js';
import { proxyFromEnvironment, proxyURL, type Environment } from '../client/proxy-settings.js';
import { isObject } from '../decode/json/fields.js';
import { LastGood } from './last-good.js';
import { readKubeconfig, systemReason, type Kubeconfig } from './kubeconfig.js';

export interface ConnectionOptions {
  /** Path of a kubeconfig file; '' or absent: none. */
  readonly kubeconfig?: string | undefined;
  /** URL of the API server; overrides the one in the kubeconfig. '' or absent: none. */
  readonly master?: string | undefined;
  /** For tests; process.env when absent. */
  readonly environment?: Environment;
  /** For tests; where a pod finds its token and CA. */
  readonly serviceAccountFolder?: string;
  /** A credential plugin has ended, this way. */
  readonly onPlugin?: (outcome: PluginOutcome) => void;
  /** For tests; a credential plugin that takes longer is killed. */
  readonly pluginDeadlineMs?: number;
}

export type PluginOutcome = 'no_error' | 'plugin_execution_error' | 'plugin_not_found_error';

/** What one TLS connection needs, in the words of node:tls. */
export interface TlsMaterial {
  readonly ca?: Buffer;
  readonly cert?: Buffer | string;
  readonly key?: Buffer | string;
  readonly rejectUnauthorized?: false;
  readonly servername?: string;
}

export type RequestHeaders = Readonly<Record<string, string | string[]>>;

/** A plain view of where and as whom; every call reads what may have been renewed in the meantime. */
export interface ApiCredentials {
  readonly server: URL;
  /** A proxy to reach it through, by CONNECT. */
  readonly proxy: URL | undefined;
  /** For messages: 'kubeconfig /etc/x (context y)'. */
  readonly source: string;
  /** For a new connection. @throws KubeError */
  tls(): Promise<TlsMaterial>;
  /** For a request. @throws KubeError */
  headers(): Promise<RequestHeaders>;
  /** The server did not accept what the last call gave: read it anew next time. */
  rejected(): void;
  /** Ends what runs to get them. */
  close?(): void;
}

const defaultServiceAccountFolder = '/var/run/secrets/kubernetes.io/serviceaccount';
/** Tokens are rotated on disk; client-go looks once a minute too. */
const tokenLifetimeMs = 60_000;
const pluginDeadlineMs = 60_000;

/**
 * Find out where the API server is. Nothing is sent yet.
 * @throws KubeError with one line that says what is wrong and what to do
 */
export async function loadCredentials(options: ConnectionOptions, log: Logger): Promise<ApiCredentials> {
  const kubeconfig = options.kubeconfig ?? '';
  const master = options.master ?? '';
  const environment = options.environment ?? process.env;
  const anonymous = (): ApiCredentials =>
    new AnonymousCredentials(serverURL(master, '--master', false), environment);
  if (kubeconfig === '' && master === '') return inCluster(options, log);
  if (kubeconfig === '') return anonymous();
  const config = readKubeconfig(kubeconfig);
  if (config === undefined) {
    if (master !== '') return anonymous();
    if (environment['KUBERNETES_SERVICE_HOST'] !== undefined) {
      log.warn('The kubeconfig is empty, using the service account of the pod', { kubeconfig });
      return inCluster(options, log);
    }
    throw new KubeError(
      'KUBE_CONFIG_INVALID',
      `kubeconfig ${kubeconfig} is empty: it needs clusters, contexts and a current-context`,
    );
  }
  return KubeconfigCredentials.create(config, master, environment, options, log);
}

/** The URL of an API server; a bare host:port means http, or https where TLS settings exist. */
function serverURL(text: string, origin: string, tls: boolean): URL {
  const full = text.includes('://') ? text : `${tls ? 'https' : 'http'}://${text}`;
  let url: URL | undefined;
  try {
    url = new URL(full);
  } catch {
    url = undefined;
  }
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new KubeError(
      'KUBE_SERVER_URL',
      `${origin} ${JSON.stringify(text)} is not the URL of an API server: write it as https://host:port`,
    );
  }
  return url;
}

async function readCredential(file: string, what: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new KubeError(
      'KUBE_CREDENTIAL_FILE',
      `${what} ${file} can't be read (${systemReason(error)}): check the path and its permissions`,
      { cause: error },
    );
  }
}

/** A bearer token in a file that somebody else renews. */
class TokenFile {
  private readonly file: LastGood<string>;
  private heldToken = '';
  private readAt = -Infinity;

  constructor(file: string, log: Logger) {
    this.file = new LastGood(log, async () => {
      const text = (await readCredential(file, 'token file')).toString('utf8').trim();
      if (text !== '') return text;
      throw new KubeError('KUBE_CREDENTIAL_FILE', `token file ${file} is empty: put a bearer token in it`);
    });
  }

  async token(): Promise<string> {
    const now = performance.now();
    if (now - this.readAt > tokenLifetimeMs) {
      this.heldToken = await this.file.read();
      this.readAt = now;
    }
    return this.heldToken;
  }

  forget(): void {
    this.readAt = -Infinity;
  }
}

class AnonymousCredentials implements ApiCredentials {
  readonly server: URL;
  readonly proxy: URL | undefined;
  readonly source = '--master';

  constructor(server: URL, environment: Environment) {
    this.server = server;
    this.proxy = proxyFromEnvironment(server, environment);
  }

  tls(): Promise<TlsMaterial> {
    return Promise.resolve({});
  }

  headers(): Promise<RequestHeaders> {
    return Promise.resolve({});
  }

  rejected(): void {
    // There is nothing to renew.
  }
}

async function inCluster(options: ConnectionOptions, log: Logger): Promise<ApiCredentials> {
  const environment = options.environment ?? process.env;
  const folder = options.serviceAccountFolder ?? defaultServiceAccountFolder;
  const host = environment['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = environment['KUBERNETES_SERVICE_PORT'] ?? '';
  if (host === '' || port === '') {
    throw new KubeError(
      'KUBE_NOT_IN_CLUSTER',
      'no API server is known: give --kubeconfig or --master, or run in a pod, where KUBERNETES_SERVICE_HOST and ' +
        'KUBERNETES_SERVICE_PORT are set',
    );
  }
  const token = new TokenFile(path.join(folder, 'token'), log);
  await token.token();
  const server = serverURL(
    `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    'KUBERNETES_SERVICE_HOST and _PORT',
    true,
  );
  log.info("Using the pod's service account", { server: server.origin });
  const caFile = path.join(folder, 'ca.crt');
  const ca = new LastGood(log, () => readFile(caFile));
  return {
    server,
    proxy: proxyFromEnvironment(server, environment),
    source: `service account in ${folder}`,
    tls: async () => {
      try {
        return { ca: await ca.read() };
      } catch (error) {
        log.error('The CA of the service account is not readable, trusting the system roots', error, {
          file: caFile,
        });
        return {};
      }
    },
    headers: async () => ({ authorization: `Bearer ${await token.token()}` }),
    rejected: () => {
      token.forget();
    },
  };
}

class KubeconfigCredentials implements ApiCredentials {
  readonly server: URL;
  readonly proxy: URL | undefined;
  readonly source: string;
  private readonly config: Kubeconfig;
  private readonly files: LastGood<TlsMaterial>;
  private readonly tokenFile: TokenFile | undefined;
  private readonly plugin: ExecPlugin | undefined;
  private issued: { readonly credential: Promise<PluginCredential>; expiresAt: number } | undefined;

  static async create(
    config: Kubeconfig,
    master: string,
    environment: Environment,
    options: ConnectionOptions,
    log: Logger,
  ): Promise<KubeconfigCredentials> {
    const credentials = new KubeconfigCredentials(config, master, environment, options, log);
    // Files that are wrong now are better reported before anything else starts.
    await credentials.files.read();
    if (credentials.tokenFile !== undefined) await credentials.tokenFile.token();
    return credentials;
  }

  private constructor(
    config: Kubeconfig,
    master: string,
    environment: Environment,
    private readonly options: ConnectionOptions,
    log: Logger,
  ) {
    this.config = config;
    this.files = new LastGood(log, () => this.readFiles());
    this.source = `kubeconfig ${config.file} (context ${config.context})`;
    this.server =
      master === ''
        ? serverURL(
            config.cluster.server,
            `kubeconfig ${config.file}: server of ${config.cluster.name}`,
            true,
          )
        : serverURL(master, '--master', true);
    const proxy: unknown = config.cluster.proxyUrl;
    this.proxy =
      typeof proxy === 'string' && proxy !== ''
        ? proxyURL(proxy, `kubeconfig ${config.file}: proxy-url`)
        : proxyFromEnvironment(this.server, environment);
    const tokenFile = config.rawUser['tokenFile'];
    if (typeof tokenFile === 'string' && tokenFile !== '') {
      this.tokenFile = new TokenFile(path.resolve(path.dirname(config.file), tokenFile), log);
    }
    if (isObject(config.user?.authProvider)) {
      throw new KubeError(
        'KUBE_AUTH_UNSUPPORTED',
        `kubeconfig ${config.file}: user ${config.user.name} has an auth-provider, which is not supported: ` +
          'use a client certificate, a token, or an exec plugin',
      );
    }
    if (isObject(config.user?.exec)) this.plugin = this.makePlugin(config.user.exec, environment);
  }

  private async readFiles(): Promise<TlsMaterial> {
    const { cluster, user } = this.config;
    const load = async (file: unknown, data: unknown, what: string): Promise<Buffer | undefined> => {
      if (typeof data === 'string' && data !== '') return Buffer.from(data, 'base64');
      if (typeof file === 'string' && file !== '') return readCredential(file, what);
      return undefined;
    };
    const ca = await load(cluster.caFile, cluster.caData, 'certificate-authority');
    const cert = await load(user?.certFile, user?.certData, 'client-certificate');
    const key = await load(user?.keyFile, user?.keyData, 'client-key');
    if ((cert === undefined) !== (key === undefined)) {
      throw new KubeError(
        'KUBE_CONFIG_INVALID',
        `kubeconfig ${this.config.file}: user ${user?.name ?? ''} needs both client-certificate and client-key`,
      );
    }
    const servername: unknown = cluster.tlsServerName;
    return {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(cluster.skipTLSVerify ? { rejectUnauthorized: false } : {}),
      ...(typeof servername === 'string' && servername !== '' ? { servername } : {}),
    };
  }

  async tls(): Promise<TlsMaterial> {
    const files = await this.files.read();
    const issued = await this.issuedCredential();
    if (issued?.clientCertificate === undefined || issued.clientKey === undefined) return files;
    return { ...files, cert: issued.clientCertificate, key: issued.clientKey };
  }

  async headers(): Promise<RequestHeaders> {
    const { user, rawUser } = this.config;
    if (user === undefined) return {};
    const headers: Record<string, string | string[]> = {};
    if (this.tokenFile !== undefined) headers['authorization'] = `Bearer ${await this.tokenFile.token()}`;
    else if (user.token !== undefined && user.token !== '') headers['authorization'] = `Bearer ${user.token}`;
    else if (user.username !== undefined && user.username !== '' && typeof user.username === 'string') {
      const pair = `${user.username}:${user.password ?? ''}`;
      headers['authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
    } else {
      const issued = await this.issuedCredential();
      if (issued?.token !== undefined) headers['authorization'] = `Bearer ${issued.token}`;
    }
    if (typeof user.impersonateUser === 'string') headers['impersonate-user'] = user.impersonateUser;
    const groups = rawUser['as-groups'];
    if (Array.isArray(groups)) headers['impersonate-group'] = groups.map(String);
    if (typeof rawUser['as-uid'] === 'string') headers['impersonate-uid'] = rawUser['as-uid'];
    return headers;
  }

  rejected(): void {
    this.tokenFile?.forget();
    this.issued = undefined;
  }

  close(): void {
    this.plugin?.close();
  }

  /** What the plugin printed last, until that expires or is rejected. */
  private async issuedCredential(): Promise<PluginCredential | undefined> {
    const plugin = this.plugin;
    if (plugin === undefined) return undefined;
    if (this.issued === undefined || Date.now() >= this.issued.expiresAt)
      this.issued = { credential: this.runPlugin(plugin), expiresAt: Infinity };
    const current = this.issued;
    try {
      const credential = await current.credential;
      current.expiresAt = credential.expiresAt ?? Infinity;
      return credential;
    } catch (error) {
      if (this.issued === current) this.issued = undefined;
      throw error;
    }
  }

  private makePlugin(exec: Readonly<Record<string, unknown>>, environment: Environment): ExecPlugin {
    const name = textOf(exec['command']);
    const { args } = exec;
    const given: readonly unknown[] = Array.isArray(exec['env']) ? exec['env'] : [];
    const info = {
      apiVersion: exec['apiVersion'],
      kind: 'ExecCredential',
      spec: { interactive: false },
    };
    return new ExecPlugin({
      command: name.includes('/') ? path.resolve(path.dirname(this.config.file), name) : name,
      args: Array.isArray(args) ? args.map(String) : [],
      env: {
        ...environment,
        ...Object.fromEntries(
          given.filter(isObject).map((entry) => [textOf(entry['name']), textOf(entry['value'])]),
        ),
        KUBERNETES_EXEC_INFO: JSON.stringify(info),
      },
      deadlineMs: this.options.pluginDeadlineMs ?? pluginDeadlineMs,
    });
  }

  private async runPlugin(plugin: ExecPlugin): Promise<PluginCredential> {
    const { onPlugin } = this.options;
    try {
      const credential = await plugin.run();
      onPlugin?.('no_error');
      return credential;
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      onPlugin?.(missing ? 'plugin_not_found_error' : 'plugin_execution_error');
      const { user } = this.config;
      const exec = isObject(user?.exec) ? user.exec : {};
      const hint = textOf(exec['installHint']).trim();
      const which = `exec plugin ${JSON.stringify(textOf(exec['command']))} of user ${user?.name ?? ''}`;
      throw new KubeError(
        'KUBE_EXEC_PLUGIN',
        missing
          ? `${which} is not installed: ${hint === '' ? 'install it, or use other credentials' : hint}`
          : `${which} failed: ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
