/** On each node another program changes a table of its own all the time. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { busyTable, changeBusyTable } from '../process/busy-table.js';

/** As nft names it. */
export const neighbourTable = `ip ${busyTable}`;
const perSecond = 10;
const elements = 100;
const script = fileURLToPath(new URL('../process/busy-neighbour.js', import.meta.url));

export class Neighbours {
  private readonly connection = NftablesConnection.open();
  private readonly timer: NodeJS.Timeout;
  private readonly child: ChildProcess;
  private round = 0;
  private pauses = 0;

  /**
   * One in this process, in the network namespace of the calling thread, so that its transactions can be told from others; the
   * other in a process of its own.
   * @param namespace of the other, a name for `ip netns`
   */
  constructor(namespace: string) {
    this.timer = setInterval(() => {
      if (this.pauses === 0) changeBusyTable(this.connection, this.round++, elements);
    }, 1000 / perSecond);
    this.child = spawn(
      'ip',
      ['netns', 'exec', namespace, process.execPath, script, String(perSecond), String(elements)],
      { stdio: 'ignore' },
    );
  }

  /** So far, in the namespace of the calling thread. */
  get transactions(): number {
    return this.connection.transactions;
  }

  /** nft begins anew to read when anything has changed meanwhile, which on a busy machine has no end. */
  async pausedFor<T>(reading: () => Promise<T>): Promise<T> {
    if (this.pauses++ === 0) this.child.kill('SIGSTOP');
    try {
      return await reading();
    } finally {
      if (--this.pauses === 0) this.child.kill('SIGCONT');
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.connection.close();
    this.child.kill('SIGKILL');
  }
}
