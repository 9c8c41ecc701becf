/** What the kernel tests of this folder share: a network namespace of their own, connections, a table to put things into. */
import { after } from 'node:test';
import { enterNetworkNamespace, missingNft, run } from '../../testing/namespace.js';
import type { SocketOptions } from '../../socket.js';
import { Batch } from '../batch.js';
import { NftablesConnection } from '../connection.js';
import { SET_CASES } from './sets.fixture.js';

const impossible = enterNetworkNamespace();
export const skip = impossible === false ? missingNft() : impossible;
const opened: NftablesConnection[] = [];

/** A connection that is closed after the tests. */
export function connect(options: SocketOptions = {}): NftablesConnection {
  const connection = NftablesConnection.open(options);
  opened.push(connection);
  return connection;
}

after(() => {
  for (const connection of opened) connection.close();
});

export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

/** A table with everything the rule cases refer to. */
export function prepare(family: 'ip' | 'ip6', table: string): Batch {
  const batch = new Batch(family, table);
  batch.addTable();
  batch.addChain('pick-3');
  batch.addChain('pre', { base: { type: 'nat', hook: 'prerouting', priority: -100 } });
  batch.addChain('post', { base: { type: 'nat', hook: 'postrouting', priority: 100 } });
  batch.addChain('c');
  for (const set of SET_CASES) if (set.family === family) batch.addSet(set.definition);
  return batch;
}

/** The lines of nft list table, trimmed. */
export function listed(family: string, table: string): string[] {
  return run('nft', 'list', 'table', family, table)
    .split('\n')
    .map((line) => line.trim());
}
