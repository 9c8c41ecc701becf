/** A table of mode nftables that is read around every transaction. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { NETLINK_NETFILTER, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../src/backends/backend.js';
import { parseRuleset, type Table } from '../soak/ruleset.js';
import type { Family } from '../soak/objects.js';
import type { Transition } from './walks.js';
import { podRange } from './world.js';

export function readTable(family: Family): Table {
  const nft = family === 'IPv4' ? 'ip' : 'ip6';
  const { stdout, stderr, status } = spawnSync('nft', ['-j', 'list', 'table', nft, 'kube-proxy'], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  assert.equal(status, 0, stderr);
  const table = parseRuleset(stdout, new Set([`${nft} kube-proxy`])).tables.get(`${nft} kube-proxy`);
  assert.ok(table !== undefined, 'the table is not there');
  return table;
}

/** PROOF_SEEDS=50,51 instead of those that are always taken: even ones are IPv4. */
export function chosenSeeds(): readonly { readonly family: Family; readonly seed: number }[] {
  const seeds = (process.env['PROOF_SEEDS'] ?? '').split(',').filter(Boolean).map(Number);
  return seeds.map((seed) => ({ family: seed % 2 === 0 ? 'IPv4' : 'IPv6', seed }));
}

/** As good as none. */
export const emptyTable: Table = { asleep: false, chains: new Map(), collections: new Map() };

/** Reads the table after every transaction. */
export class WatchedConnection extends NftablesConnection {
  /** performance.now() of the first transaction since last taken. */
  firstAt: number | undefined;
  /** Since last taken. */
  private transitions: Transition[] = [];
  private last: Table | undefined;

  /** @param last the table as it is, if it is to be looked at what becomes of it */
  static of(family: Family, last?: Table): WatchedConnection {
    const connection = new WatchedConnection(NetlinkSocket.open(NETLINK_NETFILTER));
    connection.family = family;
    connection.last = last;
    return connection;
  }

  private family: Family = 'IPv4';

  override commit(batch: Batch): void {
    super.commit(batch);
    if (batch.isEmpty) return;
    this.firstAt ??= performance.now();
    const after = readTable(this.family);
    // Of a table that is new there is no mix: without base chains no packet is on its way through it.
    if (this.last !== undefined)
      this.transitions.push({ before: this.last === emptyTable ? after : this.last, after });
    this.last = after;
  }

  take(): readonly Transition[] {
    const taken = this.transitions;
    this.transitions = [];
    this.firstAt = undefined;
    return taken;
  }

  get table(): Table {
    assert.ok(this.last !== undefined);
    return this.last;
  }
}

/** Transactions that hold one or two service ports, as if each were as large as a transaction may be. */
export function withSmallTransactions(): () => void {
  const real = Object.getOwnPropertyDescriptor(Batch.prototype, 'byteLength');
  assert.ok(real !== undefined);
  Object.defineProperty(Batch.prototype, 'byteLength', {
    ...real,
    get(this: Batch): number {
      return (real.get?.call(this) as number) * 1024;
    },
  });
  return () => {
    Object.defineProperty(Batch.prototype, 'byteLength', real);
  };
}

export function optionsOf(family: Family): DataplaneOptions {
  const [ip = '', length] = podRange(family).split('/');
  return {
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: { kind: 'cidr', cidr: { ip, prefixLength: Number(length) } },
    nodePortAddresses: 'all',
  };
}
