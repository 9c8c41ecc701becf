/** Reads which pods have which addresses, for commands that show names: from the API server, or from manifests. */
import { guarded } from '../callbacks/guarded.js';
import type { Config } from '../config/config.js';
import { PodNames } from '../inspect/pod-names.js';
import { BrokenObjectError, KubeError } from '../sources/kube/errors.js';
import { isObject, listAt, objectAt, textAt } from '../sources/kube/decode/json/fields.js';
import { errorText, silentLogger } from '../log/logger.js';

/** A person waits for the answer, and gets one without names of pods otherwise. */
const patienceMs = 5_000;
const pageSize = 500;

export interface Selection {
  readonly namespace: string | undefined;
  readonly service: string | undefined;
}

/**
 * Names as far as they can be had.
 * @param lacking told why there are none
 */
export async function readPodNames(
  config: Pick<Config, 'client' | 'manifests'>,
  selection: Selection,
  lacking: (why: string) => void,
): Promise<PodNames> {
  const names = new PodNames();
  try {
    if (config.manifests === '') await fromServer(config, selection, names);
    else await fromManifests(config.manifests, names);
  } catch (error) {
    const timedOut = error instanceof Error && error.name === 'TimeoutError';
    lacking(timedOut ? `the API server did not answer within ${patienceMs / 1000} s` : errorText(error));
  }
  return names;
}

async function fromManifests(path: string, names: PodNames): Promise<void> {
  const { ManifestFiles } = await import('../sources/manifests/documents.js');
  for (const { kind, value } of new ManifestFiles().read(path).flatMap(({ objects }) => objects))
    if (kind === 'EndpointSlice') names.add(value);
}

async function fromServer(
  { client: options }: Pick<Config, 'client'>,
  { namespace, service }: Selection,
  names: PodNames,
): Promise<void> {
  const { loadCredentials } = await import('../sources/kube/auth/credentials.js');
  const { ApiClient } = await import('../sources/kube/client/client.js');
  const { userAgent } = await import('../sources/kube/auth/user-agent.js');
  const { version } = await import('../version/version.js');
  const signal = AbortSignal.timeout(patienceMs);
  const credentials = await loadCredentials(options, silentLogger);
  const client = new ApiClient(credentials, {
    userAgent: userAgent(version),
    timeouts: { connectMs: patienceMs, headersMs: patienceMs },
  });
  // A credential plugin that hangs ends with it.
  const giveUp = guarded('give up pod names', () => {
    client.close();
  });
  signal.addEventListener('abort', giveUp);
  try {
    const scope = namespace === undefined ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
    const path = `/apis/discovery.k8s.io/v1${scope}/endpointslices`;
    const query = new URLSearchParams({ limit: String(pageSize) });
    if (service !== undefined) query.set('labelSelector', `kubernetes.io/service-name=${service}`);
    do {
      const { status, body } = await client.request({
        target: `${path}?${query.toString()}`,
        accept: 'application/json',
        gzip: true,
        stallMs: patienceMs,
        signal,
      });
      const chunks: Buffer[] = [];
      for await (const chunk of body) chunks.push(chunk);
      if (status !== 200)
        throw new KubeError(
          'KUBE_API_STATUS',
          `${client.server} answers ${status} to the list of EndpointSlices`,
        );
      const list: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
      if (!isObject(list)) throw new BrokenObjectError('', 'must be a list of EndpointSlices');
      for (const item of listAt(list, 'items', '')) if (isObject(item)) names.add(item);
      query.set('continue', textAt(objectAt(list, 'metadata', ''), 'continue', 'metadata.'));
    } while (query.get('continue') !== '');
  } finally {
    client.close();
  }
}
