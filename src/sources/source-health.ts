/**
 * Whether what a source delivered is still what the cluster wants: the truth for health endpoints, metrics and
 * `status`. Nothing here judges; a dataplane that serves yesterday's state serves better than none.
 */
import type { ResourceKind } from './objects.js';
import type { ReflectorStatus } from './kube/reflector/reflector.js';

export interface KindHealth {
  /** The first complete list is there. */
  readonly synced: boolean;
  /** A watch is open: changes arrive as they happen. */
  readonly watching: boolean;
  /** Objects held. */
  readonly objects: number;
  /** When the objects held were last known to be the server's, milliseconds since the epoch; 0: never. */
  readonly currentAt: number;
  /** When bytes last came from the server, be they an error; milliseconds since the epoch; 0: never. */
  readonly lastContact: number;
  /** What keeps us from the data now; undefined when nothing does. */
  readonly lastError: { readonly code: string; readonly message: string } | undefined;
}

export interface SourceHealth {
  /**
   * starting: nothing complete has been delivered yet. current: changes arrive as they happen.
   * stale: what was delivered is served, but may be out of date.
   */
  readonly state: 'starting' | 'current' | 'stale';
  /** Since when it may be out of date, milliseconds since the epoch; undefined unless stale. */
  readonly staleSince: number | undefined;
  /** One line for people; '' when current. */
  readonly reason: string;
  /** Newest of all kinds. */
  readonly lastContact: number;
  /** What is served comes from the state file of an earlier process. */
  readonly fromStateFile: boolean;
  readonly kinds: Readonly<Partial<Record<ResourceKind, KindHealth>>>;
}

/** A watch is renewed every few minutes, and a cut one within a second; only a longer gap means anything. */
const gapMs = 10_000;
/** Bookmarks come once a minute: a watch that has been quiet for longer proves nothing. */
const proofMs = 75_000;

/** Kinds without which nothing is served; one of the others that is missing makes nothing stale. */
const essential: ReadonlySet<ResourceKind> = new Set<ResourceKind>(['Service', 'EndpointSlice', 'Node']);

/** @param now milliseconds since the epoch */
export function sourceHealth(
  status: Readonly<Partial<Record<ResourceKind, ReflectorStatus>>>,
  now: number,
): SourceHealth {
  const kinds: Partial<Record<ResourceKind, KindHealth>> = {};
  let lastContact = 0;
  let starting: string | undefined;
  let stale: { since: number; reason: string } | undefined;
  for (const kind of Object.keys(status) as ResourceKind[]) {
    const entry = status[kind];
    if (entry === undefined) continue;
    const { synced, watching, objects, currentAt, lastError } = entry;
    // A watch that follows only what is new is in error, too.
    const follows = watching && lastError === undefined && now - entry.lastContact <= proofMs;
    kinds[kind] = {
      synced,
      watching,
      objects,
      currentAt: follows ? now : currentAt,
      lastContact: entry.lastContact,
      lastError: lastError === undefined ? undefined : { code: lastError.code, message: lastError.message },
    };
    lastContact = Math.max(lastContact, entry.lastContact);
    if (!essential.has(kind)) continue;
    if (!synced) starting ??= lastError?.message ?? `the first list of ${kind} objects is not complete`;
    else if (!follows && now - currentAt > gapMs && currentAt < (stale?.since ?? Infinity)) {
      const silent = watching
        ? `nothing, not even a bookmark, comes over the watch for ${kind} objects`
        : `there is no watch for ${kind} objects`;
      stale = { since: currentAt, reason: lastError?.message ?? silent };
    }
  }
  return {
    state: starting !== undefined ? 'starting' : stale !== undefined ? 'stale' : 'current',
    staleSince: starting === undefined ? stale?.since : undefined,
    reason: starting ?? stale?.reason ?? '',
    lastContact,
    fromStateFile: false,
    kinds,
  };
}
