/** Whether there can be objects at all, asked before anything is touched or logged. */
import type { Config } from '../config/config.js';
import { KubeError } from '../sources/kube/errors.js';
import { silentLogger } from '../log/logger.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import { exitCodeFor } from './start-patience.js';

/**
 * Reads the credentials, or looks for the manifests. Nothing is sent.
 * @throws FatalError for what the operator has to correct
 */
export async function checkSource(config: Pick<Config, 'client' | 'manifests'>): Promise<void> {
  if (config.manifests !== '') {
    await checkManifests(config.manifests);
    return;
  }
  const { loadCredentials } = await import('../sources/kube/auth/credentials.js');
  try {
    await loadCredentials(config.client, silentLogger);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    throw new FatalError(exitCodeFor(error, exitCodes.failure), error.message, { cause: error });
  }
}

async function checkManifests(path: string): Promise<void> {
  const { manifestFiles } = await import('../sources/manifests/documents.js');
  const { ManifestError } = await import('../sources/manifests/errors.js');
  try {
    manifestFiles(path);
  } catch (error) {
    if (!(error instanceof ManifestError)) throw error;
    throw new FatalError(exitCodes.manifests, error.message, { cause: error });
  }
}
