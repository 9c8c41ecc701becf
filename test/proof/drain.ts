/** Deletions that have to wait for packets in flight (Dataplane.deferredDueAt), brought forward. */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Dataplane } from '../../src/backends/backend.js';

/** So late everything is due. */
const late = 3_600_000;

interface WithExtent {
  deferredExtent?(now: number, enough: number): number;
}

/** Elements wait to be deleted. The sweep of remembered clients, which is due at times of its own, does not count. */
export function waits(dataplane: Dataplane & WithExtent): boolean {
  if (dataplane.deferredDueAt === undefined) return false;
  return (dataplane.deferredExtent?.(performance.now() + late, 0) ?? 1) > 0;
}

export async function drain(dataplane: Dataplane): Promise<void> {
  while (waits(dataplane)) {
    await dataplane.deleteDeferred(performance.now() + late);
    await nextTurn();
  }
}
