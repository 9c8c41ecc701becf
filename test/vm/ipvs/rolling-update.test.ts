/**
 * All pods of a Service are replaced, one after the other, while clients stay and others come: nobody is turned away, and
 * no connection ends that its pod would still have served.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { type Child, clientIP, nodeIP, serviceIP } from '../../process/node.js';
import {
  IpvsNode,
  ipvsadmLines,
  missingIpvs,
  nodePort,
  otherClientIP,
  podIPOf,
  port,
  readyPods,
  until,
  type Pod,
} from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs();

/** How long a pod that ends goes on taking connections: what a preStop hook of a few seconds gives. */
const lingerMs = 10_000;
/** Longer than any client stays. */
const graceMs = 60_000;

describe('a rolling update under load', { skip }, () => {
  const node = new IpvsNode();
  before(() => node.open());
  after(() => node.close());

  const startPod = async (number: number): Promise<Child> => {
    node.addPodAddress(podIPOf(number));
    const pod = node.script(0, 'pod.js', podIPOf(number), String(port), String(lingerMs), String(graceMs));
    await pod.waitFor('ready');
    return pod;
  };
  const last = (child: Child): unknown => JSON.parse(child.output.trim().split('\n').at(-1) ?? '');

  for (const scheduler of ['rr', 'lc']) {
    test(`${scheduler}: no connection is lost, none is refused`, async () => {
      const first = scheduler === 'rr' ? 1 : 11;
      const old = [first, first + 1, first + 2];
      const fresh = [first + 3, first + 4, first + 5];
      const running = new Map<number, Child>();
      for (const number of old) running.set(number, await startPod(number));
      node.setPods(readyPods(...old));
      await node.startProxy(`--ipvs-scheduler=${scheduler}`, '--ipvs-sync-period=5s');
      const loads = [
        node.script(1, 'visitors.js', serviceIP, '80', clientIP),
        node.script(1, 'visitors.js', nodeIP, String(nodePort), otherClientIP),
      ];
      for (const load of loads) await load.waitFor('ready');
      await sleep(3_000);

      const ready = [...old];
      for (const [at, number] of old.entries()) {
        const next = fresh[at] ?? 0;
        running.set(next, await startPod(next));
        ready.splice(ready.indexOf(number), 1);
        ready.push(next);
        // As in a cluster: the pod ends, its slice says so, and it is gone from there when it is gone.
        const leaving: Pod = { ip: podIPOf(number), state: 'terminating' };
        node.setPods([...readyPods(...ready), leaving]);
        const pod = running.get(number);
        assert.ok(pod);
        pod.kill('SIGTERM');
        assert.equal(await pod.end(graceMs + 10_000), 0);
        const { served, cutOff } = last(pod) as { served: number; cutOff: number };
        assert.ok(served > 0, `pod ${number} had clients`);
        assert.equal(cutOff, 0, `pod ${number}`);
        node.setPods(readyPods(...ready));
      }
      await sleep(3_000);

      for (const load of loads) {
        load.kill('SIGTERM');
        await load.end();
        const { stays, lines, visits, lost, refused, endpoints } = last(load) as {
          stays: number;
          lines: number;
          visits: number;
          lost: string[];
          refused: string[];
          endpoints: Record<string, number>;
        };
        assert.deepEqual({ lost, refused }, { lost: [], refused: [] });
        assert.ok(stays > 6 && visits > 10 && lines > 100, `${stays} stayed, ${visits} came, ${lines} lines`);
        const served = [...old, ...fresh].filter((number) => (endpoints[podIPOf(number)] ?? 0) > 0);
        assert.deepEqual(served, [...old, ...fresh], 'every pod had its share');
      }
      // Closed connections count for two minutes (TIME_WAIT); then nothing holds the old endpoints.
      await until(
        'the old endpoints are gone',
        () =>
          ipvsadmLines().length === 4 &&
          old.every(
            (number) =>
              !ipvsadmLines()
                .join()
                .includes(`${podIPOf(number)}:`),
          ),
        30_000,
      );
      assert.deepEqual(
        ipvsadmLines()
          .slice(1)
          .map((line) => line.split(' ').slice(0, 4).join(' '))
          .sort(),
        fresh.map((number) => `-> ${podIPOf(number)}:${port} Masq 1`).sort(),
      );
      for (const number of fresh) running.get(number)?.kill('SIGKILL');
    });
  }
});
