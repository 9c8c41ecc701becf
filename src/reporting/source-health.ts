/** What is known about the cluster's objects, as /healthz and /metrics show it. */
import type { ApiServerHealth } from '../health/health.js';
import type { SourceHealth } from '../sources/source-health.js';
import type { ResourceKind } from '../sources/objects.js';
import type { ApiServerState } from '../metrics/own.js';

/** Everything the first sync waits for. */
const essential: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node'];

/** @returns undefined where there is no API server: manifests have no kinds */
export function apiServerHealth(source: SourceHealth): ApiServerHealth | undefined {
  const { state, staleSince, lastContact, fromStateFile, kinds } = source;
  if (Object.keys(kinds).length === 0) return undefined;
  const failing = essential.map((kind) => kinds[kind]?.lastError).find((error) => error !== undefined);
  return {
    state,
    staleSince,
    lastContact,
    fromStateFile,
    waitingFor: essential.filter((kind) => kinds[kind]?.synced !== true),
    error: state === 'current' ? undefined : failing?.code,
  };
}

export function apiServerState({ kinds, fromStateFile }: SourceHealth): ApiServerState | undefined {
  if (Object.keys(kinds).length === 0) return undefined;
  const resources = Object.entries(kinds).map(([kind, { synced, watching, objects, currentAt }]) => ({
    kind,
    synced,
    watching,
    objects,
    currentAt,
  }));
  return { resources, fromStateFile };
}
