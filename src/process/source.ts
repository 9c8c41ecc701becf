/** Where the cluster's objects come from: the API server, or manifest files. */
import type { Config } from '../config/config.js';
import type { ClusterSink } from '../kube/objects.js';
import type { Logger } from '../log/logger.js';

export interface Source {
  start(): void;
  stop(): Promise<void>;
}

export async function openSource(
  _config: Config,
  _sink: ClusterSink,
  _log: Logger,
  _fail: (error: unknown) => void,
): Promise<Source> {
  await Promise.resolve();
  throw new Error('not there yet');
}
