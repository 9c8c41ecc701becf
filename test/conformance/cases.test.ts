import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadSections, testsOf } from './cases.js';
import { expectationOf } from './row-run.js';
import { parseEndpoints, parseOutcome, parsePacket } from './notation.js';
import { slicesOf } from './objects.js';
import { batches, groupByConfiguration, isAlone } from './schedule.js';

const sections = loadSections();
const rows = sections.flatMap((section) => section.rows);
const tests = sections.flatMap((section) => section.rows.flatMap((row) => [...testsOf(section, row)]));

describe('the case files', () => {
  it('hold every row once', () => {
    assert.deepEqual(
      rows.map(({ row }) => row).sort((a, b) => a - b),
      Array.from({ length: 371 }, (_, index) => index + 1),
    );
  });

  it('leave out at most ten rows of the nftables mode, each with its reason', () => {
    const exempt = rows.filter((row) => row.exempt !== undefined && row.modes?.includes('nft') !== false);
    assert.ok(exempt.length <= 10);
    assert.ok(exempt.every(({ exempt: reason }) => (reason ?? '').length > 20));
  });

  it('can be read in all columns and by both standards', () => {
    for (const test of tests) {
      for (const spec of test.services.values()) {
        for (const slice of slicesOf(spec)) parseEndpoints(slice.eps, test.family);
      }
      for (const step of test.steps) {
        if (step.send !== undefined) parsePacket(step.send);
        for (const column of ['nft', 'ipt', 'auto', 'ipvs'] as const) {
          for (const standard of ['better', 'upstream'] as const) {
            const expected = expectationOf(step, { column, standard });
            if (step.stray === undefined && expected !== undefined)
              parseOutcome(expected.replace('$held', 'L1'), test.family);
          }
        }
      }
    }
  });

  it('say where upstream is judged weak whenever better is expected', () => {
    for (const row of rows) {
      const deviates = [row, ...(row.steps ?? [])].some(({ better }) => better !== undefined);
      assert.ok(!deviates || row['upstream-weak'] === true, `row ${row.row}`);
    }
  });
});

describe('twins', () => {
  it('swap the protocol everywhere, so that the wrong one stays wrong', () => {
    const twin = tests.find(({ id }) => id === '6 v6 udp');
    assert.equal(twin?.services.get('pear')?.port, '80/UDP');
    assert.equal(twin.steps[0]?.send, 'PA -> [fd77::50]:80 TCP');
  });

  it('are not made of rows that name their only family', () => {
    const ids = tests.filter(({ row }) => row.row === 55).map(({ id }) => id);
    assert.deepEqual(ids, ['55 v4 tcp', '55 v4 udp', '55 v4 sctp']);
  });

  it('share one configuration of the proxy', () => {
    const groups = groupByConfiguration(tests.filter(({ row }) => row.row === 158));
    assert.equal(groups.length, 1);
    assert.deepEqual(groups[0]?.tests[0]?.proxy['nodeport-addresses'], [
      '100.64.77.0/24',
      '2001:db8:77::/64',
    ]);
  });
});

describe('batches', () => {
  it('hold every test once', () => {
    const planned = groupByConfiguration(tests).flatMap((group) => batches(group.tests).flat());
    assert.equal(planned.length, tests.length);
    assert.equal(new Set(planned).size, tests.length);
  });

  it('never join two tests of one service address, nor what must run alone', () => {
    for (const group of groupByConfiguration(tests)) {
      for (const batch of batches(group.tests)) {
        assert.ok(batch.length === 1 || !batch.some(isAlone));
        const addresses = batch.flatMap((test) => [
          ...new Set(
            [...test.services.values()].flatMap((spec) => spec.cip ?? []).filter((text) => /[.:]/.test(text)),
          ),
        ]);
        assert.equal(new Set(addresses).size, addresses.length, batch.map(({ id }) => id).join(', '));
      }
    }
  });
});
