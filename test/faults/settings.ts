/** The two places where sequences take place: a world of its own with its own time, and this computer. */
import { setTimeout as sleep } from 'node:timers/promises';
import type net from 'node:net';
import type { ApiCredentials } from '../../src/sources/kube/auth/credentials.js';
import type { Random } from '@kube-proxy-ts/netlink/testing';
import type { CertificateSet } from '../apiserver/certificates.js';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import type { Setting } from './sequence.js';
import { VirtualTime } from './virtual-time.js';

function credentials(server: URL, ca?: Buffer): ApiCredentials {
  return {
    server,
    proxy: undefined,
    source: 'the test',
    tls: () => Promise.resolve(ca === undefined ? {} : { ca }),
    headers: () => Promise.resolve({}),
    rejected: () => undefined,
  };
}

/** Without network and clock, and with the pauses and limits that the program has in life. */
export async function inMemory<T>(random: Random, work: (setting: Setting) => Promise<T>): Promise<T> {
  const clock = new VirtualTime();
  clock.install(random);
  try {
    return await work({
      clock,
      // Decompression takes place in threads, which know no other time than the real one.
      source: { gzip: false },
      scale: 2000,
      endMs: 3_600_000,
      open: (options) => Promise.resolve(ApiServer.inMemory(options)),
      connection: (server) => ({
        connection: credentials(new URL('http://192.0.2.100:6443')),
        dial: () => {
          // Within one machine, one site, or half around the world.
          const socket = server.connect([0, 1, 20, 150][random.below(4)]);
          // A net.Socket to whoever only reads and writes.
          return Promise.resolve({ socket: socket as unknown as net.Socket, protocol: server.protocol });
        },
      }),
    });
  } finally {
    clock.uninstall();
  }
}

/** Over loopback with TLS; what takes seconds in life takes milliseconds here. */
export function onLoopback(certificates: CertificateSet): Setting {
  const until = async (isSo: () => boolean, ms: number): Promise<boolean> => {
    const deadline = performance.now() + patiently(ms);
    for (let wait = 1; !isSo(); wait = Math.min(wait + 1, 10)) {
      if (performance.now() > deadline) return false;
      await sleep(wait);
    }
    return true;
  };
  const ca = Buffer.from(certificates.authority);
  return {
    clock: { pass: (ms) => sleep(ms), until },
    source: {
      timings: {
        backoff: { firstMs: 5, maxMs: 40 },
        watchMinMs: 1500,
        watchGraceMs: 50,
        watchStallMs: 900,
        initialEventsStallMs: 500,
        listStallMs: 500,
        streamingRetryMs: 500,
        absentRetryMs: 50,
        brokenRetryMs: 20,
        longestRetryAfterMs: 50,
      },
      timeouts: { connectMs: 1000, headersMs: 1000, pingAfterMs: 200, pongMs: 800 },
    },
    scale: 1,
    endMs: 60_000,
    open: (options) => ApiServer.start({ ...options, tls: certificates }),
    connection: (server) => ({ connection: credentials(new URL(server.url), ca) }),
  };
}
