import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger, type Logger } from '../../../log/logger.js';
import { LastGood } from './last-good.js';

test('what was read before stands in for what can not be read, and the log says so once', async () => {
  const warnings: unknown[] = [];
  const log: Logger = { ...silentLogger, warn: (message, fields) => warnings.push([message, fields]) };
  const answers: (string | Error)[] = [new Error('gone'), 'a', new Error('gone'), new Error('gone'), 'b'];
  const credentials = new LastGood(log, () => {
    const answer = answers.shift();
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  });
  await assert.rejects(credentials.read(), /gone/);
  const read: (string | undefined)[] = [];
  for (let i = 0; i < 4; i++) read.push(await credentials.read());
  assert.deepEqual(read, ['a', 'a', 'a', 'b']);
  assert.deepEqual(warnings, [['Failed to read credentials, using those read before', { err: 'gone' }]]);
});
