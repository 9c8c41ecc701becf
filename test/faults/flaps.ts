/** Troubles of an API server that flaps: each begins, and ends when it is told to. */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import type { Fault } from '../apiserver/faults.js';
import type { ApiServer } from '../apiserver/server.js';
import { strike, type Strike } from '../apiserver/strikes.js';

/** @returns ends it */
export type Flap = (server: ApiServer, random: Random, ms: number) => () => void;

const paths = ['', '', '/services', '/endpointslices'];
const nothing = (): void => undefined;

/** All requests to some path are answered wrongly, and watches are cut, so that there are requests. */
function answering(fault: Fault): Flap {
  return (server, random) => {
    server.faults.arm(fault, { count: 1_000_000, match: paths[random.below(paths.length)] ?? '' });
    server.cutWatches();
    return () => {
      server.faults.clear();
    };
  };
}

/** Something happens to everything that is open, several times. */
function striking(what: Strike): Flap {
  return (server, random, ms) => {
    const again = setInterval(
      () => {
        strike(server, what);
      },
      ms / (1 + random.below(4)),
    );
    strike(server, what);
    return () => {
      clearInterval(again);
    };
  };
}

export const flaps: Readonly<Record<string, Flap>> = {
  'answers 500': answering({ kind: 'status', status: 500 }),
  'answers 503': answering({ kind: 'status', status: 503 }),
  'answers 429': answering({ kind: 'status', status: 429 }),
  'answers 401': answering({ kind: 'status', status: 401 }),
  'answers 403': answering({ kind: 'status', status: 403 }),
  'answers 410': answering({ kind: 'status', status: 410 }),
  'a maintenance page': answering({ kind: 'web-page', contentType: 'text/html' }),
  'hangs up': answering({ kind: 'hang-up' }),
  'bodies that break': answering({ kind: 'reset', after: 200 }),
  'garbage in bodies': answering({ kind: 'garbage', after: 100, count: 20 }),
  'watches that end at once': answering({ kind: 'ends-at-once' }),
  'watches cut': striking({ kind: 'cut-watches' }),
  'watches ended': striking({ kind: 'end-watches' }),
  'connections cut': striking({ kind: 'cut-connections' }),
  'noise in watches': striking({ kind: 'noise' }),
  'half an event': striking({ kind: 'half-event' }),
  '500 in watches': striking({ kind: 'error-event', status: 500 }),
  '410 in watches': striking({ kind: 'compact', expire: true }),
  GOAWAY: striking({ kind: 'go-away' }),
  'connections refused': (server, _random, ms) => {
    strike(server, { kind: 'refuse', ms });
    server.cutWatches();
    return nothing;
  },
  'connections closed at once': (server, _random, ms) => {
    strike(server, { kind: 'slam', ms });
    server.cutWatches();
    return nothing;
  },
  'the process killed': (server, _random, ms) => {
    strike(server, { kind: 'refuse', ms });
    server.cutConnections();
    return nothing;
  },
};
