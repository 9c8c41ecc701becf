/** Deletions that have to wait for packets in flight (Dataplane.deferredDueAt), brought forward. */
import { performance } from 'node:perf_hooks';
import type { Dataplane } from '../../src/dataplane/dataplane.js';

/** So late everything is due. */
const late = 3_600_000;

export async function drain(dataplane: Dataplane): Promise<void> {
  while (dataplane.deferredDueAt !== undefined) await dataplane.deleteDeferred?.(performance.now() + late);
}
