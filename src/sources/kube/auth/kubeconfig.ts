/**
 * Reading a kubeconfig file. What the entries mean is left to the official client library, of which only the small
 * modules are loaded: its KubeConfig class alone costs 380 ms and 76 MiB (it pulls in the generated API of all kinds),
 * the modules used here 4 ms and 3 MiB.
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import {
  newClusters,
  newContexts,
  newUsers,
  type Cluster,
  type User,
} from '@kubernetes/client-node/dist/config_types.js';
import { readTextWithin } from '../../../yaml/bounded-file.js';
import { KubeError } from '../errors.js';
import { isObject, type JsonObject } from '../decode/json/fields.js';

/** Certificates may stand in it. */
const maxFileBytes = 16 * 1024 * 1024;

/** The cluster and user that the current context names. File names in it are absolute. */
export interface Kubeconfig {
  readonly file: string;
  readonly context: string;
  readonly cluster: Cluster;
  /** undefined: the context has no user, requests are anonymous. */
  readonly user: User | undefined;
  /** Entries of the user that the library does not know: tokenFile, as-groups, as-uid. */
  readonly rawUser: JsonObject;
}

/** Says what went wrong as the operating system does, without the path, which our messages name themselves. */
export function systemReason(error: unknown): string {
  const code = isObject(error) || error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  switch (code) {
    case 'ENOENT':
      return 'no such file';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'it is a directory';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}

/**
 * @returns undefined when the file has no clusters, users and contexts at all ("empty" to upstream, which then looks
 *   for a service account)
 * @throws KubeError KUBE_CONFIG_*, KUBE_CONTEXT_MISSING, KUBE_CLUSTER_MISSING, KUBE_USER_MISSING
 */
export function readKubeconfig(file: string): Kubeconfig | undefined {
  let text: string;
  try {
    text = readTextWithin(file, maxFileBytes);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new KubeError(
      missing ? 'KUBE_CONFIG_MISSING' : 'KUBE_CONFIG_UNREADABLE',
      missing
        ? `kubeconfig ${file} does not exist: check --kubeconfig, or leave it out to use the pod's service account`
        : `kubeconfig ${file} can't be read (${systemReason(error)}): make it a file that this process may read`,
      { cause: error },
    );
  }
  const document = parse(file, text);
  if (document === undefined) return undefined;
  const invalid = (what: string, cause?: unknown): KubeError =>
    new KubeError('KUBE_CONFIG_INVALID', `kubeconfig ${file}: ${what}`, { cause });
  if (!isObject(document))
    throw invalid('is not a kubeconfig: it must be a mapping with clusters and contexts');

  let clusters: Cluster[];
  let users: User[];
  let contexts: ReturnType<typeof newContexts>;
  try {
    clusters = newClusters(document['clusters']);
    // A file named by 'token-file' would be read by the library right here; the field of the format is tokenFile.
    users = newUsers(withoutTokenFile(document['users']));
    contexts = newContexts(document['contexts']);
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : 'has entries of a wrong type', error);
  }
  if (clusters.length === 0 && users.length === 0 && contexts.length === 0) return undefined;

  const names = (list: readonly { readonly name: string }[]): string =>
    list.length === 0 ? 'it has none' : `it has: ${list.map((entry) => entry.name).join(', ')}`;
  const current = document['current-context'];
  if (typeof current !== 'string' || current === '') {
    throw new KubeError(
      'KUBE_CONTEXT_MISSING',
      `kubeconfig ${file} has no current-context (contexts: ${names(contexts)}): ` +
        `set one with kubectl config use-context NAME --kubeconfig ${file}`,
    );
  }
  const context = contexts.find((entry) => entry.name === current);
  if (context === undefined) {
    throw new KubeError(
      'KUBE_CONTEXT_MISSING',
      `kubeconfig ${file}: current-context is ${current}, but there is no such context (${names(contexts)})`,
    );
  }
  const cluster = clusters.find((entry) => entry.name === context.cluster);
  if (cluster === undefined) {
    throw new KubeError(
      'KUBE_CLUSTER_MISSING',
      `kubeconfig ${file}: context ${current} names cluster ${context.cluster}, which is missing (${names(clusters)})`,
    );
  }
  const userName = context.user as string | undefined;
  const user = users.find((entry) => entry.name === userName);
  if (user === undefined && userName !== undefined && userName !== '') {
    throw new KubeError(
      'KUBE_USER_MISSING',
      `kubeconfig ${file}: context ${current} names user ${userName}, which is missing (${names(users)})`,
    );
  }
  const folder = path.dirname(path.resolve(file));
  for (const holder of [cluster, user]) {
    if (holder === undefined) continue;
    const files = holder as { caFile?: unknown; certFile?: unknown; keyFile?: unknown };
    for (const key of ['caFile', 'certFile', 'keyFile'] as const) {
      const name = files[key];
      if (typeof name === 'string' && name !== '') files[key] = path.resolve(folder, name);
    }
  }
  return { file, context: current, cluster, user, rawUser: rawUserOf(document['users'], userName) };
}

function parse(file: string, text: string): unknown {
  // The YAML parser that the client library itself uses, so that both accept the same files.
  const fromClient = createRequire(
    createRequire(import.meta.url).resolve('@kubernetes/client-node/dist/config_types.js'),
  );
  const { load } = fromClient('js-yaml') as { load: (text: string) => unknown };
  try {
    return load(text) ?? undefined;
  } catch (error) {
    const mark = isObject(error) || error instanceof Error ? (error as { mark?: unknown }).mark : undefined;
    const reason = (error as { reason?: unknown }).reason;
    const place =
      isObject(mark) && typeof mark['line'] === 'number' && typeof mark['column'] === 'number'
        ? ` at line ${mark['line'] + 1}, column ${mark['column'] + 1}`
        : '';
    throw new KubeError(
      'KUBE_CONFIG_INVALID',
      `kubeconfig ${file} is not YAML${place} (${typeof reason === 'string' ? reason : 'syntax error'}): fix the file`,
      { cause: error },
    );
  }
}

function withoutTokenFile(users: unknown): unknown {
  if (!Array.isArray(users)) return users;
  return users.map((entry: unknown) => {
    if (!isObject(entry) || !isObject(entry['user'])) return entry;
    return { ...entry, user: { ...entry['user'], 'token-file': undefined } };
  });
}

function rawUserOf(users: unknown, name: string | undefined): JsonObject {
  if (!Array.isArray(users)) return {};
  const entry: unknown = users.find(
    (candidate: unknown) => isObject(candidate) && candidate['name'] === name,
  );
  return isObject(entry) && isObject(entry['user']) ? entry['user'] : {};
}
