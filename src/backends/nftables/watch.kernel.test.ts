/**
 * The watch and what others do while it does not listen: in a large transaction of ours, or when notifications were lost. Only what
 * they do to our table counts.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger } from '../../log/logger.js';
import type { IPFamily } from '../../model/types.js';
import { NETLINK_NETFILTER, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { Batch, NftablesConnection, types } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { TableWatch } from '../engine/table-watch.js';
import { WatchedDataplane } from '../engine/watched-dataplane.js';
import { serviceKey } from '../nft/keys.js';
import { NftablesFamily } from './family.js';
import { maps } from './layout/names.js';
import { optionsOf, servicePort, tableName } from './testing/node.js';

const skip = enterNetworkNamespace();
const services = 20;
/** By then notifications are read, and a check was asked for. */
const enoughMs = 300;

class Lab {
  readonly other = NftablesConnection.open();
  readonly backOff: string[] = [];
  readonly missed: IPFamily[] = [];
  readonly compared: IPFamily[] = [];
  readonly lines: string[] = [];
  readonly dataplane: WatchedDataplane;
  private readonly connection: NftablesConnection;
  private meanwhile: (() => void) | undefined;
  private readonly watch: TableWatch;
  private readonly observer = NftablesConnection.open();

  constructor() {
    const socket = NetlinkSocket.open(NETLINK_NETFILTER);
    const send = socket.send.bind(socket);
    socket.send = (buffer, length) => {
      this.meanwhile?.();
      this.meanwhile = undefined;
      send(buffer, length);
    };
    const connection = new NftablesConnection(socket);
    this.connection = connection;
    const inner = new NftablesFamily(connection, optionsOf('IPv4'));
    this.watch = new TableWatch({
      table: tableName,
      families: ['IPv4'],
      learnedSet: maps.affinity,
      connections: [connection],
      generation: () => this.observer.getGeneration().id,
      repair: (_family, touched) => inner.repair(touched),
      onRepaired: () => undefined,
      onMissed: (family) => this.missed.push(family),
      onForeignChange: (family) => this.compared.push(family),
      onBackoff: (by) => this.backOff.push(by),
      log: createLogger({ format: 'text', verbosity: 0, write: (line) => this.lines.push(line) }),
    });
    this.dataplane = new WatchedDataplane(inner, this.watch);
  }

  async begin(): Promise<void> {
    await this.dataplane.resync(Array.from({ length: services }, (_, i) => servicePort(i + 1)));
  }

  /**
   * A large transaction of ours, and a little later the check, if the watch asks for one.
   * @param meanwhile done when the transaction is on its way to the kernel
   */
  async large(meanwhile: () => void = () => undefined) {
    const batch = new Batch('ip', 'ours');
    batch.addTable();
    fill(batch, 5000);
    this.meanwhile = meanwhile;
    this.connection.commit(batch);
    await sleep(enoughMs);
    return this.missed.length > 0 ? await this.dataplane.verify() : undefined;
  }

  commit(table: string, fill: (batch: Batch) => void): void {
    const batch = new Batch('ip', table);
    fill(batch);
    this.other.commit(batch);
  }

  async close(): Promise<void> {
    await this.watch.close();
    this.dataplane.close();
    for (const { name } of this.other.listTables('ip'))
      this.commit(name, (batch) => {
        batch.deleteTable();
      });
    this.observer.close();
    this.other.close();
  }
}

function fill(batch: Batch, count: number): void {
  batch.addSet({ name: 'many', key: [types.ipv4Addr] });
  for (let i = 0; i < count; i++) {
    const element = Buffer.alloc(4);
    element.writeUInt32BE(i);
    batch.addElement('many', element);
  }
}

async function inLab(work: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = new Lab();
  try {
    await lab.begin();
    await work(lab);
  } finally {
    await lab.close();
  }
}
const theirs = (batch: Batch): void => {
  batch.addTable();
  batch.addChain('theirs');
};
const key = Buffer.from(serviceKey('10.177.0.7', 'TCP', 80), 'latin1');

describe('changes by others that the watch does not hear of', { skip }, () => {
  test('transactions before and after a large one of ours leave nothing to be checked', async () => {
    await inLab(async (lab) => {
      lab.commit('theirs', theirs);
      await lab.large();
      lab.commit('theirs', theirs);
      await lab.large();
      assert.deepEqual([lab.missed, lab.backOff, lab.lines], [[], [], []]);
    });
  });

  test('a table of theirs during a large transaction of ours: a check, and nothing is said', async () => {
    await inLab(async (lab) => {
      const report = await lab.large(() => {
        lab.commit('theirs', theirs);
      });
      assert.deepEqual(lab.missed, ['IPv4']);
      assert.equal(report?.transactions, 0);
      assert.deepEqual([lab.backOff, lab.compared, lab.lines], [[], [], []]);
    });
  });

  test('an element of ours during a large transaction of ours: it is repaired, said, and counted', async () => {
    await inLab(async (lab) => {
      const report = await lab.large(() => {
        lab.commit(tableName, (batch) => {
          batch.deleteElement(maps.serviceIPs, key);
        });
      });
      assert.equal(report?.elementsAdded, 1);
      assert.equal(lab.backOff.length, 1);
      assert.deepEqual(lab.compared, []);
      assert.match(
        lab.lines.join('\n'),
        /^W.*Map elements modified by another program, repaired.* elements=1/,
      );
    });
  });

  test('a chain in our table during a large transaction of ours: everything is compared', async () => {
    await inLab(async (lab) => {
      const report = await lab.large(() => {
        lab.commit(tableName, (batch) => {
          batch.addChain('theirs');
        });
      });
      assert.equal(report?.transactions, 0);
      await sleep(enoughMs);
      assert.deepEqual(lab.compared, ['IPv4']);
      assert.equal(lab.backOff.length, 1);
      assert.match(lab.lines.join('\n'), /^W.*Rules modified by another program, repairing/);
    });
  });

  test('notifications that are lost: a check, and nothing is said', async () => {
    await inLab(async (lab) => {
      lab.commit('theirs', (batch) => {
        batch.addTable();
        fill(batch, 100_000);
      });
      await sleep(enoughMs);
      assert.deepEqual(lab.missed, ['IPv4']);
      assert.equal((await lab.dataplane.verify())?.transactions, 0);
      assert.deepEqual([lab.backOff, lab.compared, lab.lines], [[], [], []]);
    });
  });
});
