/**
 * Every fault by itself, in a world without clock: how long until all is right again, with the pauses and limits that the
 * program has in life. docs/resilience.md tells these times; here it is held to them.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ApiServerSource } from '../../src/sources/kube/source.js';
import { silentLogger } from '../../src/log/logger.js';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { isListFault, isStreamFault } from '../apiserver/faults.js';
import { strike } from '../apiserver/strikes.js';
import { catalogue } from './catalogue.js';
import { Cluster, nodeName } from './cluster.js';
import { freshPicture } from './sequence.js';
import { inMemory } from './settings.js';
import { Witness } from './witness.js';

/** What lasts in itself lasts about this long: 10 s. */
const scale = 1000;

/** @returns seconds from the fault to the right state, or a violation */
async function recovery(name: string, seed: number): Promise<number | string> {
  return await inMemory(new Random(seed), async (setting) => {
    const random = new Random(seed);
    const trouble = catalogue[name]?.(random, scale);
    const fault = trouble !== undefined && 'arm' in trouble ? trouble.arm : undefined;
    // Lists that have to go wrong have to come: plain ones for some, streaming ones for others.
    const streamingLists = isListFault(fault)
      ? 'invalid'
      : isStreamFault(fault) || seed % 3 > 0
        ? 'on'
        : 'invalid';
    const server = await setting.open({ http2: seed % 2 === 0, streamingLists });
    const cluster = new Cluster(server, random);
    const witness = new Witness(cluster);
    const source = new ApiServerSource(
      { ...setting.connection(server), ...setting.source, nodeName, pageSize: 2 },
      witness,
      silentLogger,
    );
    source.start();
    if (!(await setting.clock.until(() => witness.begun, 60_000))) return 'it did not begin';
    // A watch has been open for a while.
    await setting.clock.pass(100_000);
    const before = performance.now();
    if (name === 'a database set back') {
      strike(server, { kind: 'backup' });
      cluster.change();
      await setting.clock.pass(5_000);
      cluster.restored = true;
      strike(server, { kind: 'restore' });
    } else if (trouble === undefined) {
      return 'no such fault';
    } else if ('strike' in trouble) {
      strike(server, trouble.strike);
    } else if (fault !== undefined) {
      // It meets the Services, in a list or a watch, whichever it is about.
      server.faults.arm(fault, { match: fault.kind === 'expired-token' ? 'continue=' : '/services' });
      server.compact(true);
    }
    // So many that every kind that may have lost track shows it.
    for (let n = 0; n < 12; n++) cluster.change();
    // The fault is for the one that is watched, not for the fresh start that it is compared with.
    if (!(await setting.clock.until(() => server.faults.armed === 0, 60_000))) return 'it did not happen';
    const wanted = await freshPicture(server, setting);
    const healed = await setting.clock.until(() => witness.picture() === wanted, 3_600_000);
    const took = (performance.now() - before) / 1000;
    if (witness.violations.length > 0) return witness.violations.join('; ');
    return healed ? took : 'never right again';
  });
}

/** From the table in section Faults of docs/resilience.md: fault (its first column, in backquotes none) to seconds. */
function documented(): Map<string, number> {
  const text = readFileSync(new URL('../../../docs/resilience.md', import.meta.url), 'utf8');
  const section = /^## Faults$[^]*?(?=^## )/m.exec(text)?.[0] ?? '';
  const rows = [...section.matchAll(/^\| ([^|]+) \| [^|]+ \| (?:within )?(\d+) (s|min) \|$/gm)];
  return new Map(
    rows.map(([, name = '', number, unit]) => [name, Number(number) * (unit === 'min' ? 60 : 1)]),
  );
}

test('every fault by itself ends as docs/resilience.md says', async (t) => {
  const promised = documented();
  const names = [...Object.keys(catalogue).filter((name) => name !== 'bookmarks'), 'a database set back'];
  assert.deepEqual([...promised.keys()].sort(), [...names].sort(), 'the table names each fault');
  for (const name of names) {
    await t.test(name, async () => {
      let longest = 0;
      for (let seed = 1; seed <= 6; seed++) {
        const took = await recovery(name, seed);
        assert.equal(typeof took, 'number', `seed ${seed}: ${took}`);
        longest = Math.max(longest, Number(took));
      }
      t.diagnostic(`${name}: at most ${longest.toFixed(1)} s`);
      assert.ok(longest <= (promised.get(name) ?? 0), `${longest} s`);
    });
  }
});
