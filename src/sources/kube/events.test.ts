/** Events on their way to the API server: paced, none twice, and none refused for what its object is called. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Json } from '../../../test/apiserver/defaults.js';
import { ApiServer } from '../../../test/apiserver/server.js';
import { createLogger } from '../../log/logger.js';
import { loadCredentials } from './auth/credentials.js';
import { EventRecorder, type ClusterEvent, type EventPacing } from './events.js';
import { ApiClient } from './client/client.js';

async function begin(t: TestContext, pacing?: EventPacing) {
  const server = await ApiServer.start();
  const lines: string[] = [];
  const log = createLogger({ format: 'text', verbosity: 0, write: (line) => lines.push(line) });
  const client = new ApiClient(await loadCredentials({ master: server.url }, log), { userAgent: 'test' });
  const recorder = new EventRecorder(client, 'alder', log, pacing);
  t.after(async () => {
    recorder.close();
    client.close();
    await server.close();
  });
  const arrived = async (count: number): Promise<readonly Json[]> => {
    for (let i = 0; i < 1000 && server.events.length < count; i++) await sleep(5);
    assert.equal(server.events.length, count);
    return server.events;
  };
  return { server, recorder, arrived, lines };
}

const about = (name: string, more: Partial<ClusterEvent> = {}): ClusterEvent => ({
  type: 'Warning',
  reason: 'FieldsLeftOut',
  action: 'ProgramRules',
  regarding: { apiVersion: 'v1', kind: 'Service', namespace: 'orchard', name, uid: 'u-1' },
  note: name,
  ...more,
});
const nameOf = (event: Json): string => String((event['metadata'] as Json)['name']);

test('an event has what the API asks for', async (t) => {
  const { recorder, arrived } = await begin(t);
  recorder.record(about('pear'));
  const [event = {}] = await arrived(1);
  const { metadata, eventTime, ...rest } = event;
  assert.match(String((metadata as Json)['name']), /^pear\.[0-9a-f]{16}$/);
  assert.equal((metadata as Json)['namespace'], 'orchard');
  assert.match(String(eventTime), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
  assert.deepEqual(rest, {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    reportingController: 'kube-proxy',
    reportingInstance: 'kube-proxy-alder',
    type: 'Warning',
    reason: 'FieldsLeftOut',
    action: 'ProgramRules',
    regarding: { apiVersion: 'v1', kind: 'Service', name: 'pear', namespace: 'orchard', uid: 'u-1' },
    note: 'pear',
  });
});

test('a burst goes at once, the rest one after the other; of two about the same thing the later one', async (t) => {
  const { server, recorder, arrived } = await begin(t, { burst: 5, refillMs: 60 });
  for (let i = 0; i < 8; i++) recorder.record(about(`s${i}`));
  recorder.record(about('s6', { note: 'another problem' }));
  recorder.record(about('s6', { reason: 'AddressTaken', note: 'of another kind' }));
  await arrived(5);
  const started = performance.now();
  await arrived(9);
  assert.ok(performance.now() - started >= 100, 'spread over time');
  assert.deepEqual(server.events.map(({ note }) => note).sort(), [
    'another problem',
    'of another kind',
    's0',
    's1',
    's2',
    's3',
    's4',
    's5',
    's7',
  ]);
  await sleep(400);
  recorder.record(about('later'));
  await arrived(10);
});

test('a storm is cut off where it does not end', async (t) => {
  const { server, recorder } = await begin(t, { burst: 1, refillMs: 3_600_000 });
  for (let i = 0; i < 100_000; i++) recorder.record(about(`s${i}`));
  await sleep(50);
  assert.equal(server.events.length, 1);
});

const names: readonly (readonly [name: string, event: RegExp])[] = [
  ['web.example.com', /^web\.example\.com\.[0-9a-f]{16}$/],
  ['Upper_Case', /^upper-case\.[0-9a-f]{16}$/],
  ['../../etc/passwd', /^etc-passwd\.[0-9a-f]{16}$/],
  ['line\nbreak\u0000', /^line-break\.[0-9a-f]{16}$/],
  ['梨', /^object\.[0-9a-f]{16}$/],
  ['a..b', /^a-b\.[0-9a-f]{16}$/],
  ['x'.repeat(10_000), /^x{200}\.[0-9a-f]{16}$/],
];
test('the name of an event is one, whatever its object is called', async (t) => {
  const { recorder, arrived } = await begin(t);
  for (const [name] of names) recorder.record(about(name, { note: name.slice(0, 10) }));
  const events = await arrived(names.length);
  for (const [name, expected] of names) {
    const event = events.find(({ note }) => note === name.slice(0, 10)) ?? {};
    assert.match(nameOf(event), expected);
    assert.equal((event['regarding'] as Json)['name'], name);
  }
});

test('events that the API server forbids: one warning, whatever their number', async (t) => {
  const { server, recorder, lines } = await begin(t);
  server.failNext({ status: 403, count: 3 });
  for (let i = 0; i < 3; i++) await recorder.deliver(about(`s${i}`));
  assert.equal(server.events.length, 0);
  assert.equal(lines.length, 1, lines.join(''));
  assert.match(lines[0] ?? '', /^W.*"Failed to send events: forbidden, further ones are lost" .*hint=/);
});

test('a note has at most 1024 bytes, and no half character', async (t) => {
  const { recorder, arrived } = await begin(t);
  recorder.record(about('pear', { note: `x${'梨'.repeat(1000)}` }));
  const [event = {}] = await arrived(1);
  const note = String(event['note']);
  assert.equal(note, `x${'梨'.repeat(341)}`);
  assert.ok(Buffer.byteLength(note) <= 1024);
});
