/** What was written, in nft's words and read back, and its deletion. In a network namespace of its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from '../testing/namespace.js';
import { Batch } from './batch.js';
import { goTo, jumpTo, type Verdict } from './data.js';
import { expr, normaliseExpressions, sameExpressions } from './expression/index.js';
import { selectors, types } from './field.js';
import { sameSetDefinition } from './objects/set.js';
import { connect, hex, listed, prepare, skip } from './testing/kernel.fixture.js';
import { RULE_CASES } from './testing/rules.fixture.js';
import { SET_CASES } from './testing/sets.fixture.js';

test('rules: nft prints them as it prints its own, and dumps decode to what was sent', { skip }, () => {
  const connection = connect();
  for (const family of ['ip', 'ip6'] as const) {
    const cases = RULE_CASES.filter((c) => c.family === family);
    const batch = prepare(family, 'rules');
    for (const c of cases) batch.addRule(c.chain, c.expressions, { comment: 'why' });
    connection.commit(batch);
    const lines = listed(family, 'rules');
    for (const chain of ['pre', 'post', 'c'] as const) {
      const expected = cases.filter((c) => c.chain === chain);
      const start = lines.indexOf(`chain ${chain} {`) + (chain === 'c' ? 1 : 2);
      assert.deepEqual(
        lines.slice(start, start + expected.length),
        expected.map((c) => `${c.listed ?? c.text} comment "why"`),
      );
      const rules = connection.listRules(family, 'rules', chain);
      assert.equal(rules.length, expected.length);
      for (const [i, c] of expected.entries()) {
        const rule = rules[i];
        assert.ok(rule);
        assert.deepEqual(rule.expressions, normaliseExpressions(c.expressions), c.text);
        assert.ok(sameExpressions(rule.expressions, c.expressions));
        assert.equal(rule.comment, 'why');
        assert.equal(rule.chain, chain);
      }
    }
  }
});

test('sets: nft prints their types, and the dump is recognised', { skip }, () => {
  const connection = connect();
  for (const family of ['ip', 'ip6'] as const) {
    connection.commit(prepare(family, 'all-sets'));
    const lines = listed(family, 'all-sets').join('\n');
    for (const { text, definition } of SET_CASES.filter((c) => c.family === family)) {
      const declaration = /(?:typeof|type) [^;]*/.exec(text)?.[0] ?? '';
      assert.ok(lines.includes(declaration), declaration);
      const info = connection.getSet(family, 'all-sets', definition.name);
      assert.ok(info);
      assert.ok(sameSetDefinition(definition, info), definition.name);
    }
    assert.equal(
      connection.listSets(family, 'all-sets').length,
      SET_CASES.filter((c) => c.family === family).length,
    );
  }
  assert.equal(connection.getSet('ip', 'all-sets', 'no-such-set'), undefined);
});

test('the whole listing of a small table', { skip }, () => {
  const connection = connect();
  const { ipSaddr, ipDaddr, l4proto, thDport, priority, numgenRandom } = selectors;
  const batch = new Batch('ip', 'small');
  batch.addTable({ comment: 'made by a test' });
  batch.addChain('pick-3', { comment: 'three endpoints' });
  batch.addChain('nat', { base: { type: 'nat', hook: 'prerouting', priority: -100 } });
  batch.addChain('guard', { base: { type: 'filter', hook: 'input', priority: -110, policy: 'drop' } });
  batch.addSet({ name: 'service-ips', key: [ipDaddr, l4proto, thDport], value: [priority] });
  batch.addSet({
    name: 'endpoints',
    key: [ipDaddr, l4proto, thDport, numgenRandom(2)],
    value: [ipDaddr, thDport],
  });
  batch.addSet({ name: 'classes', key: [priority], value: 'verdict', comment: 'who serves' });
  batch.addSet({
    name: 'affinity',
    key: [ipSaddr, priority],
    value: [priority],
    dynamic: true,
    timeout: true,
    size: 100,
  });
  batch.addSet({ name: 'service-cidrs', key: [types.ipv4Addr], interval: true });
  batch.addSet({ name: 'ports', key: [types.ipv4Addr, types.inetService], interval: true });
  const key = '0a000001 06000000 00500000';
  batch.addElement('service-ips', hex(key), hex('03000100'), { comment: 'ns/web:http' });
  batch.addElement('endpoints', hex(`${key} 01000000`), hex('0a3d0101 23280000'));
  batch.addElement('classes', hex('03000100'), goTo('pick-3'));
  batch.addElement('affinity', hex('0a000009 00000100'), hex('01000100'), { timeoutMs: 10_800_000 });
  batch.addElement('service-cidrs', hex('0a600000'));
  batch.addElement('service-cidrs', hex('0a610000'), undefined, { intervalEnd: true });
  batch.addElement('ports', hex('0a600000 00500000'), undefined, { keyEnd: hex('0a60ffff 00600000') });
  connection.commit(batch);
  const listing = run('nft', 'list', 'table', 'ip', 'small').replace(/expires \S+/, 'expires SOON');
  assert.equal(
    listing,
    `table ip small {
	comment "made by a test"
	map service-ips {
		typeof ip daddr . meta l4proto . th dport : meta priority
		elements = { 10.0.0.1 . tcp . 80 comment "ns/web:http" : 1:3 }
	}

	map endpoints {
		typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
		elements = { 10.0.0.1 . tcp . 80 . 1 : 10.61.1.1 . 9000 }
	}

	map classes {
		typeof meta priority : verdict
		comment "who serves"
		elements = { 1:3 : goto pick-3 }
	}

	map affinity {
		typeof ip saddr . meta priority : meta priority
		size 100
		flags dynamic,timeout
		elements = { 10.0.0.9 . 1:0 timeout 3h expires SOON : 1:1 }
	}

	set service-cidrs {
		type ipv4_addr
		flags interval
		elements = { 10.96.0.0/16 }
	}

	set ports {
		type ipv4_addr . inet_service
		flags interval
		elements = { 10.96.0.0/16 . 80-96 }
	}

	chain pick-3 {
		comment "three endpoints"
	}

	chain nat {
		type nat hook prerouting priority dstnat; policy accept;
	}

	chain guard {
		type filter hook input priority -110; policy drop;
	}
}
`,
  );
  // The machine-readable form lists too.
  assert.doesNotThrow(() => JSON.parse(run('nft', '-j', 'list', 'table', 'ip', 'small')) as unknown);

  const chains = connection
    .listChains('ip', 'small')
    .map(({ name, base, comment }) => ({ name, base, comment }));
  assert.deepEqual(chains, [
    { name: 'pick-3', base: undefined, comment: 'three endpoints' },
    {
      name: 'nat',
      base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
      comment: undefined,
    },
    {
      name: 'guard',
      base: { type: 'filter', hook: 'input', priority: -110, policy: 'drop' },
      comment: undefined,
    },
  ]);
  const table = connection.listTables('ip').find((t) => t.name === 'small');
  assert.equal(table?.comment, 'made by a test');

  interface Seen {
    key: string;
    value: string | Verdict | undefined;
    comment?: string | undefined;
    timeoutMs?: number | undefined;
    intervalEnd: boolean;
    keyEnd: string | undefined;
  }
  const elements = (set: string): Seen[] => {
    const seen: Seen[] = [];
    connection.listElements('ip', 'small', set, (k, value, info) => {
      seen.push({
        key: k.toString('hex'),
        value: Buffer.isBuffer(value) ? value.toString('hex') : value,
        comment: info.comment,
        timeoutMs: info.timeoutMs,
        intervalEnd: info.intervalEnd,
        keyEnd: info.keyEnd?.toString('hex'),
      });
    });
    return seen.sort((a, b) => a.key.localeCompare(b.key));
  };
  const plain = { comment: undefined, timeoutMs: undefined, intervalEnd: false, keyEnd: undefined };
  assert.deepEqual(elements('service-ips'), [
    { ...plain, key: '0a0000010600000000500000', value: '03000100', comment: 'ns/web:http' },
  ]);
  assert.deepEqual(elements('classes'), [{ ...plain, key: '03000100', value: goTo('pick-3') }]);
  assert.deepEqual(elements('affinity'), [
    { ...plain, key: '0a00000900000100', value: '01000100', timeoutMs: 10_800_000 },
  ]);
  assert.deepEqual(elements('service-cidrs'), [
    { ...plain, key: '0a600000', value: undefined },
    { ...plain, key: '0a610000', value: undefined, intervalEnd: true },
  ]);
  assert.deepEqual(elements('ports'), [
    { ...plain, key: '0a60000000500000', value: undefined, keyEnd: '0a60ffff00600000' },
  ]);
});

test('every deletion', { skip }, () => {
  const connection = connect();
  const make = new Batch('ip', 'gone');
  make.addTable();
  make.addChain('c');
  make.addChain('d');
  make.addRule('c', [expr.counter()]);
  make.addRule('c', [expr.counter(), expr.verdict(jumpTo('d'))]);
  make.addSet({ name: 's', key: [types.ipv4Addr] });
  make.addElement('s', hex('01020304'));
  make.addElement('s', hex('01020305'));
  connection.commit(make);
  const count = (): number => {
    let elements = 0;
    connection.listElements('ip', 'gone', 's', () => elements++);
    return elements;
  };
  const change = (fill: (batch: Batch) => void): void => {
    const batch = new Batch('ip', 'gone');
    fill(batch);
    connection.commit(batch);
  };
  const [first] = connection.listRules('ip', 'gone', 'c');
  assert.ok(first);
  change((b) => {
    b.deleteRule('c', first.handle);
    b.deleteElement('s', hex('01020304'));
  });
  assert.equal(connection.listRules('ip', 'gone', 'c').length, 1);
  assert.equal(count(), 1);
  change((b) => {
    b.flushChain('c');
    b.flushSet('s');
  });
  assert.equal(connection.listRules('ip', 'gone', 'c').length, 0);
  assert.equal(count(), 0);
  change((b) => {
    b.deleteChain('d');
    b.deleteSet('s');
  });
  assert.deepEqual(
    connection.listChains('ip', 'gone').map((chain) => chain.name),
    ['c'],
  );
  assert.deepEqual(connection.listSets('ip', 'gone'), []);
  change((b) => {
    b.deleteTable();
  });
  assert.ok(!connection.listTables().some((table) => table.name === 'gone'));
});

test('a table is put to sleep and woken', { skip }, () => {
  const connection = connect();
  const commit = (dormant?: boolean): boolean | undefined => {
    const batch = new Batch('ip', 'sleeper');
    batch.addTable(dormant === undefined ? {} : { dormant });
    connection.commit(batch);
    return connection.listTables('ip').find(({ name }) => name === 'sleeper')?.dormant;
  };
  assert.equal(commit(), false);
  assert.equal(commit(true), true);
  assert.equal(commit(), true, 'left out: it stays as it is');
  assert.equal(commit(false), false);
});
