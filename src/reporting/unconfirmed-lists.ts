/** Tells operators that a list is held back: the API server may have lost its database, or be another cluster's. */
import type { ClusterEvent } from '../sources/kube/events.js';
import type { ResourceKind } from '../sources/objects.js';
import type { OwnMetrics } from '../metrics/own.js';

export interface UnconfirmedListsOptions {
  readonly nodeName: string;
  readonly metrics: Pick<OwnMetrics, 'unconfirmedListGauge'>;
  readonly record: (event: ClusterEvent) => void;
}

/** @returns what is to be called for each kind of which a list is held back */
export function unconfirmedLists({
  nodeName,
  metrics,
  record,
}: UnconfirmedListsOptions): (kind: ResourceKind, missing: number, held: number) => void {
  return (kind, missing, held) => {
    metrics.unconfirmedListGauge.inc({ resource: kind });
    record({
      type: 'Warning',
      reason: 'ListHeldBack',
      action: 'ListAndWatch',
      regarding: { apiVersion: 'v1', kind: 'Node', namespace: '', name: nodeName, uid: '' },
      note:
        `The API server has another history than before and lacks ${missing} of ${held} ${kind} objects. ` +
        'Their rules stay for one to two minutes, then they are removed. Was the database restored, or lost?',
    });
  };
}
