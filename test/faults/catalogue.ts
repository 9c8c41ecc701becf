/** Every fault that the sequences choose from, each with the numbers that make it one of many. */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import type { Fault } from '../apiserver/faults.js';
import type { Strike } from '../apiserver/strikes.js';

export type Trouble =
  | { readonly arm: Fault; readonly count: number; readonly match: string }
  | { readonly strike: Strike }
  /** The clock of bookmarks ticks. */
  | { readonly bookmark: true };

const paths = ['', '', '/services', '/endpointslices', '/nodes', '/servicecidrs'];

/** @param scale what takes milliseconds takes so many times as long */
type Make = (random: Random, scale: number) => Trouble;

function arm(make: (random: Random, scale: number) => Fault, mostTimes = 3): Make {
  return (random, scale) => ({
    arm: make(random, scale),
    count: 1 + random.below(mostTimes),
    match: paths[random.below(paths.length)] ?? '',
  });
}
const strike =
  (make: (random: Random, scale: number) => Strike): Make =>
  (random, scale) => ({ strike: make(random, scale) });
/** Bytes into a body: early in it, or far. */
const position = (random: Random): number => random.below(random.below(2) === 0 ? 60 : 3000);

/** By name; a sequence names what it does. */
export const catalogue: Readonly<Record<string, Make>> = {
  'connections refused': strike((random, scale) => ({ kind: 'refuse', ms: scale * (1 + random.below(25)) })),
  'connections closed at once': strike((random, scale) => ({
    kind: 'slam',
    ms: scale * (1 + random.below(25)),
  })),
  'all connections cut': strike(() => ({ kind: 'cut-connections' })),
  GOAWAY: strike(() => ({ kind: 'go-away' })),
  'a new server certificate': strike(() => ({ kind: 'new-certificate' })),
  'no answer': arm(() => ({ kind: 'no-answer' }), 1),
  'closed instead of an answer': arm(() => ({ kind: 'hang-up' })),
  '429': arm(() => ({ kind: 'status', status: 429 })),
  '429 with Retry-After': arm((random) => ({
    kind: 'status',
    status: 429,
    retryAfterSeconds: random.below(4) === 0 ? 86_400 : 1,
  })),
  '500': arm(() => ({ kind: 'status', status: 500 })),
  '503': arm(() => ({ kind: 'status', status: 503 })),
  '401 that heals': arm(() => ({ kind: 'status', status: 401 })),
  '403 that heals': arm(() => ({ kind: 'status', status: 403 })),
  '404 that heals': arm(() => ({ kind: 'status', status: 404 })),
  '410 as an answer': arm(() => ({ kind: 'status', status: 410 })),
  'a web page': arm(() => ({ kind: 'web-page', contentType: 'text/html; charset=utf-8' })),
  'a web page that claims to be the data': arm((random) => ({
    kind: 'web-page',
    contentType: random.below(2) === 0 ? 'application/json' : 'application/vnd.kubernetes.protobuf',
  })),
  'a body that breaks': arm((random) => ({ kind: 'reset', after: position(random) })),
  'a body that stops': arm((random) => ({ kind: 'pause', after: position(random) }), 1),
  'a body that ends too early': arm((random) => ({ kind: 'short', after: position(random) })),
  'garbage in a body': arm((random) => ({
    kind: 'garbage',
    after: position(random),
    count: 1 + random.below(60),
  })),
  'a body that drips': arm((random, scale) => ({
    kind: 'drip',
    bytes: 20 + random.below(400),
    everyMs: scale,
  })),
  'an empty list': arm(() => ({ kind: 'empty-list' }), 1),
  'a list without a version': arm(() => ({ kind: 'list-without-version' })),
  'a list of something else': arm(() => ({ kind: 'other-kind' })),
  'a list with a nameless item': arm(() => ({ kind: 'nameless-item' }), 1),
  'a page token that has expired': arm(() => ({ kind: 'expired-token' })),
  '410 at the start of a watch': arm(() => ({ kind: 'expired-start' })),
  'a watch that ends at once': arm(() => ({ kind: 'ends-at-once' }), 6),
  'a streaming list without an end': arm(() => ({ kind: 'no-end-of-list' })),
  'a streaming list whose end is not marked': arm(() => ({ kind: 'unmarked-end' })),
  'every event twice': arm(() => ({ kind: 'echo' })),
  'watches cut': strike(() => ({ kind: 'cut-watches' })),
  'watches ended': strike(() => ({ kind: 'end-watches' })),
  'versions forgotten': strike(() => ({ kind: 'compact', expire: false })),
  '410 in a watch': strike(() => ({ kind: 'compact', expire: true })),
  '500 in a watch': strike(() => ({ kind: 'error-event', status: 500 })),
  'noise in a watch': strike(() => ({ kind: 'noise' })),
  'a frame of gigabytes': strike(() => ({ kind: 'huge-frame' })),
  'half an event': strike(() => ({ kind: 'half-event' })),
  'the last events again': strike(() => ({ kind: 'repeat' })),
  'an event of another kind': strike(() => ({ kind: 'event-of-other-kind' })),
  'an event of an unknown type': strike(() => ({ kind: 'event-of-unknown-type' })),
  'an event without a name': strike(() => ({ kind: 'event-without-name' })),
  'the deletion of what never was': strike(() => ({ kind: 'deletion-of-unknown' })),
  'a bookmark without a version': strike(() => ({ kind: 'bookmark-without-version' })),
  'watches that fall silent': strike((random, scale) => ({
    kind: 'hold-back',
    ms: scale * (20 + random.below(180)),
  })),
  bookmarks: () => ({ bookmark: true }),
};
