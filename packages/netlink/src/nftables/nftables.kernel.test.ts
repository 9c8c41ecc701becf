/** Against the kernel of this machine, in a network namespace of its own, and against nft's reading of it. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '../errors.js';
import { enterNetworkNamespace, missingNft, run } from '../testing/namespace.js';
import { Batch } from './batch.js';
import { RULE_CASES, SET_CASES } from './testing/cases.fixture.js';
import { NftablesConnection } from './connection.js';
import { accept, goTo, jumpTo, type Verdict } from './data.js';
import { expr, normaliseExpressions, sameExpressions } from './expression/index.js';
import { loadFields, selectors, types } from './field.js';
import { type Notification, subscribeNftables } from './notification.js';
import { r0 } from './register.js';
import { sameSetDefinition } from './objects/set.js';

const impossible = enterNetworkNamespace();
const skip = impossible === false ? missingNft() : impossible;
const opened: NftablesConnection[] = [];

function connect(): NftablesConnection {
  const connection = NftablesConnection.open();
  opened.push(connection);
  return connection;
}

after(() => {
  for (const connection of opened) connection.close();
});

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

/** A table with everything the rule cases refer to. */
function prepare(family: 'ip' | 'ip6', table: string): Batch {
  const batch = new Batch(family, table);
  batch.addTable();
  batch.addChain('pick-3');
  batch.addChain('pre', { base: { type: 'nat', hook: 'prerouting', priority: -100 } });
  batch.addChain('post', { base: { type: 'nat', hook: 'postrouting', priority: 100 } });
  batch.addChain('c');
  for (const set of SET_CASES) if (set.family === family) batch.addSet(set.definition);
  return batch;
}

function listed(family: string, table: string): string[] {
  return run('nft', 'list', 'table', family, table)
    .split('\n')
    .map((line) => line.trim());
}

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

test('a failed batch changes nothing and names the culprit', { skip }, () => {
  const connection = connect();
  const make = new Batch('ip', 'errors');
  make.addTable();
  make.addChain('c');
  make.addSet({ name: 'classes', key: [selectors.priority], value: 'verdict' });
  connection.commit(make);

  interface Expected {
    readonly name: string;
    readonly fill: (batch: Batch) => void;
    readonly error: Partial<NetlinkError>;
  }
  const cases: readonly Expected[] = [
    {
      name: 'an element that jumps nowhere, among others',
      fill: (b) => {
        b.addChain('new');
        for (let i = 0; i < 5; i++)
          b.addElement('classes', hex(`0${i}000100`), goTo(i === 3 ? 'nowhere' : 'c'));
      },
      error: {
        code: 'ENOENT',
        operation: 'add element to map "classes"',
        messageIndex: 1,
        elementIndex: 3,
        attribute: 'elements[3]',
        elementKey: hex('03000100'),
      },
    },
    {
      name: 'an element that is not there',
      fill: (b) => {
        b.deleteElement('classes', hex('03000100'));
      },
      error: { code: 'ENOENT', operation: 'delete element of set "classes"', elementIndex: 0 },
    },
    {
      name: 'an unknown set in a rule',
      fill: (b) => {
        b.addRule('c', [expr.meta('priority', 0), expr.lookup('nothing', 0)]);
      },
      error: {
        code: 'ENOENT',
        operation: 'add rule to chain "c", [ lookup reg 1 set nothing 0x0 ]',
        messageIndex: 0,
        attribute: 'expressions[1]',
      },
    },
    {
      name: 'an unknown chain',
      fill: (b) => {
        b.addChain('new');
        b.deleteChain('nothing');
      },
      error: { code: 'ENOENT', operation: 'delete chain "nothing"', messageIndex: 1, attribute: 'name' },
    },
    {
      name: 'two failures: the first is told',
      fill: (b) => {
        b.deleteSet('first');
        b.deleteSet('second');
      },
      error: { code: 'ENOENT', operation: 'delete set "first"', messageIndex: 0 },
    },
    {
      name: 'a set with other properties',
      fill: (b) => {
        b.addSet({ name: 'classes', key: [selectors.priority, selectors.l4proto], value: 'verdict' });
      },
      error: { operation: 'add map "classes"', messageIndex: 0 },
    },
  ];
  for (const { name, fill, error } of cases) {
    const batch = new Batch('ip', 'errors');
    fill(batch);
    assert.throws(
      () => {
        connection.commit(batch);
      },
      (thrown: unknown) => {
        assert.ok(thrown instanceof NetlinkError);
        for (const [property, value] of Object.entries(error)) {
          assert.deepEqual(thrown[property as keyof NetlinkError], value, `${name}: ${property}`);
        }
        return true;
      },
    );
  }
  assert.deepEqual(
    connection.listChains('ip', 'errors').map((chain) => chain.name),
    ['c'],
  );
  // A connection that had errors goes on.
  connection.commit(make);
});

test('a batch can demand a generation', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'generation');
  batch.addTable();
  const before = connection.getGeneration().id;
  connection.commit(batch, { generation: before });
  const after = connection.getGeneration();
  assert.equal(after.id, before + 1);
  assert.equal(after.processId, process.pid);
  assert.throws(
    () => {
      connection.commit(batch, { generation: before });
    },
    { code: 'ERESTART' },
  );
  connection.commit(batch, { generation: after.id });
});

test('elements by their keys: what is there comes in order, what is not is passed over', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'by-key');
  batch.addTable();
  batch.addSet({ name: 'm', key: [types.ipv4Addr], value: [types.mark] });
  batch.addSet({ name: 'empty', key: [types.ipv4Addr] });
  const bytes = (number: number): Buffer => {
    const buffer = Buffer.alloc(4);
    buffer.writeUInt32BE(number);
    return buffer;
  };
  for (let i = 0; i < 1000; i++) batch.addElement('m', bytes(i), bytes(i * 3), { comment: `number ${i}` });
  connection.commit(batch);
  const read = (set: string, numbers: readonly number[]): string[] => {
    const seen: string[] = [];
    connection.getElements('ip', 'by-key', set, numbers.map(bytes), (key, value, { comment }) => {
      assert.ok(Buffer.isBuffer(value));
      seen.push(`${key.readUInt32BE()} ${value.readUInt32BE()} ${comment}`);
    });
    return seen;
  };
  const expected = (numbers: readonly number[]): string[] => numbers.map((i) => `${i} ${i * 3} number ${i}`);
  const all = Array.from({ length: 1000 }, (_, i) => 999 - i);
  assert.deepEqual(read('m', all), expected(all));
  assert.deepEqual(read('m', [5000, 7, 7, 5001, 5002, 3, 1000]), expected([7, 7, 3]));
  assert.deepEqual(read('m', []), []);
  assert.deepEqual(read('empty', [1, 2]), []);
  assert.deepEqual(read('no-such-set', [1]), []);
  assert.throws(() => {
    connection.getElements('ip', 'by-key', 'm', all.map(bytes), () => {
      throw new Error('enough');
    });
  }, /enough/);
  assert.deepEqual(read('m', [4]), expected([4]));
});

test('a large batch: one acknowledgement, every element there', { skip }, async () => {
  const connection = connect();
  const total = 200_000;
  const batch = new Batch('ip', 'large');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  for (let i = 0; i < total; i++) {
    key.writeUInt32BE(i);
    batch.addElement('s', key);
  }
  assert.ok(batch.messageCount < 100);
  connection.commit(batch);
  // Until the kernel's hash table has grown, dumps may repeat and omit elements: what listElements() warns of.
  const seen = new Set<number>();
  for (let attempt = 0; attempt < 20 && seen.size < total; attempt++) {
    await sleep(100);
    seen.clear();
    connection.listElements('ip', 'large', 's', (k) => seen.add(k.readUInt32BE(0)));
  }
  assert.equal(seen.size, total);
  const end = new Batch('ip', 'large');
  end.deleteTable();
  connection.commit(end);
});

test('a batch of nothing but errors does not lose the first one', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'nothing-here');
  for (let i = 0; i < 5000; i++) batch.deleteChain(`chain-${i}`);
  assert.throws(
    () => {
      connection.commit(batch);
    },
    { code: 'ENOENT', operation: 'delete chain "chain-0"', messageIndex: 0 },
  );
  connection.getGeneration();
});

test('a batch that is too large for the socket is refused whole, and says what to do', { skip }, () => {
  const connection = NftablesConnection.open({ sendBuffer: 50_000 });
  opened.push(connection);
  assert.ok(connection.maxBatchBytes < 200_000);
  const batch = new Batch('ip', 'too-large');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  const fill = (bytes: number): void => {
    for (let i = 0; batch.byteLength < bytes; i++) {
      key.writeUInt32BE(i);
      batch.addElement('s', key);
    }
  };
  // An element with a key of 4 bytes takes 16, and a new message for it less than 60 more.
  fill(connection.maxBatchBytes - 100);
  connection.commit(batch);
  fill(connection.maxBatchBytes + 1);
  assert.throws(
    () => {
      connection.commit(batch);
    },
    { code: 'EMSGSIZE', hint: /split the batch/ },
  );
});

test('a callback that throws does not spoil the connection', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'throws');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  for (let i = 0; i < 5000; i++) {
    key.writeUInt32BE(i);
    batch.addElement('s', key);
  }
  connection.commit(batch);
  assert.throws(() => {
    connection.listElements('ip', 'throws', 's', () => {
      throw new Error('enough');
    });
  }, /enough/);
  let count = 0;
  connection.listElements('ip', 'throws', 's', () => count++);
  assert.ok(count > 0);
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

test('notifications tell own changes from those of others', { skip }, async (t) => {
  const connection = connect();
  const seen: Notification[] = [];
  const keys: string[] = [];
  const subscription = subscribeNftables({
    onNotification: (notification) => {
      seen.push(notification);
      if (notification.kind === 'elements')
        keys.push(...(notification.keys?.() ?? []).map((key) => key.toString('hex')));
    },
    onOverrun: () => assert.fail('overrun'),
    onError: (error) => assert.fail(error),
  });
  // An open subscription keeps the process alive.
  t.after(() => subscription.close());
  const batch = new Batch('ip', 'watched');
  batch.addTable();
  batch.addChain('c');
  batch.addRule('c', [expr.counter()]);
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  batch.addElement('s', hex('01020304'));
  connection.commit(batch);
  run('nft', 'add', 'element', 'ip', 'watched', 's', '{ 1.1.1.1 }');
  subscription.pause();
  run('nft', 'add', 'element', 'ip', 'watched', 's', '{ 1.1.1.2 }');
  subscription.resume();
  run('nft', 'delete', 'table', 'ip', 'watched');
  const deadline = Date.now() + 20_000;
  while (!seen.some((n) => n.kind === 'table' && n.action === 'delete') && Date.now() < deadline)
    await sleep(20);
  await sleep(50);
  await subscription.close();

  const changes = seen.map((n) =>
    n.kind === 'generation'
      ? `generation by ${n.generation.processName}`
      : `${n.portId === connection.portId ? 'own' : 'foreign'} ${n.action} ${n.kind} ${n.family ?? '?'} ${n.table} ${n.name}`,
  );
  const [self = ''] = seen.flatMap((n) =>
    n.kind === 'generation' && n.generation.processId === process.pid ? n.generation.processName : [],
  );
  assert.deepEqual(changes, [
    'own new table ip watched watched',
    'own new chain ip watched c',
    'own new rule ip watched c',
    'own new set ip watched s',
    'own new elements ip watched s',
    `generation by ${self}`,
    'foreign new elements ip watched s',
    'generation by nft',
    'foreign delete rule ip watched c',
    'foreign delete set ip watched s',
    'foreign delete chain ip watched c',
    'foreign delete table ip watched watched',
    'generation by nft',
  ]);
  assert.deepEqual(keys, ['01020304', '01010101']);
});

test('what ignored connections change is not told', { skip }, async (t) => {
  const [first, second, other] = [connect(), connect(), connect()];
  const seen: string[] = [];
  const subscription = subscribeNftables(
    {
      onNotification: (n) => seen.push(n.kind === 'generation' ? 'generation' : `${n.kind} ${n.name}`),
      onOverrun: () => assert.fail('overrun'),
      onError: (error) => assert.fail(error),
    },
    { ignoredPorts: [first.portId, second.portId] },
  );
  t.after(() => subscription.close());
  for (const [index, connection] of [first, other, second].entries()) {
    const batch = new Batch('ip', `ignored-${index}`);
    batch.addTable();
    batch.addChain('c');
    connection.commit(batch);
  }
  const deadline = Date.now() + 20_000;
  while (!seen.includes('generation') && Date.now() < deadline) await sleep(20);
  await sleep(50);
  await subscription.close();
  assert.deepEqual(seen, ['table ignored-1', 'chain c', 'generation']);
});

test('an overrun is told, and notifications go on', { skip }, async (t) => {
  const connection = connect();
  let overruns = 0;
  const names: string[] = [];
  const subscription = subscribeNftables(
    {
      onNotification: (n) => {
        if (n.kind === 'table') names.push(n.name);
      },
      onOverrun: () => overruns++,
      onError: (error) => assert.fail(error),
    },
    { receiveBuffer: 4096 },
  );
  t.after(() => subscription.close());
  const batch = new Batch('ip', 'flood');
  batch.addTable();
  for (let i = 0; i < 3000; i++) batch.addChain(`chain-${i}`);
  connection.commit(batch);
  const deadline = Date.now() + 20_000;
  while (overruns === 0 && Date.now() < deadline) await sleep(20);
  assert.ok(overruns > 0);
  // Heard once the reader has emptied the socket; until then it may overflow again.
  for (let i = 0; !names.some((name) => name.startsWith('after-flood')) && Date.now() < deadline; i++) {
    const next = new Batch('ip', `after-flood-${i}`);
    next.addTable();
    connection.commit(next);
    await sleep(100);
  }
  assert.ok(names.some((name) => name.startsWith('after-flood')));
});

test('the example of README.md', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'example');
  batch.addTable({ comment: 'who may talk to whom' });
  batch.addSet({ name: 'allowed', key: [selectors.ipSaddr, selectors.thDport] });
  batch.addElement('allowed', hex('0a00000101bb0000'), undefined, { comment: 'the proxy' });
  batch.addChain('input', { base: { type: 'filter', hook: 'input', priority: 0, policy: 'drop' } });
  batch.addRule('input', [
    ...loadFields([selectors.ipSaddr, selectors.thDport], r0),
    expr.lookup('allowed', r0),
    expr.counter(),
    expr.verdict(accept),
  ]);
  connection.commit(batch);
  assert.equal(
    run('nft', 'list', 'table', 'ip', 'example'),
    `table ip example {
	comment "who may talk to whom"
	set allowed {
		typeof ip saddr . th dport
		elements = { 10.0.0.1 . 443 comment "the proxy" }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		ip saddr . th dport @allowed counter packets 0 bytes 0 accept
	}
}
`,
  );
});
