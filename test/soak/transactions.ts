/** When the kernel's nf_tables rules changed, in the network namespace of the calling thread, whoever did it. */
import { NftablesConnection } from '../../src/netlink/nftables/index.js';

const everyMs = 1;

export class Transactions {
  /** performance.now() of the first and the last change since forget(). */
  first: number | undefined;
  last: number | undefined;
  private readonly connection = NftablesConnection.open();
  private readonly timer: NodeJS.Timeout;
  private generation: number;

  constructor() {
    this.generation = this.connection.getGeneration().id;
    this.timer = setInterval(() => {
      this.look();
    }, everyMs);
  }

  /** From now on it is another story. */
  forget(): void {
    this.look();
    this.first = this.last = undefined;
  }

  /** Milliseconds without a change. */
  quietSince(begun: number): number {
    return performance.now() - Math.max(begun, this.last ?? begun);
  }

  close(): void {
    clearInterval(this.timer);
    this.connection.close();
  }

  private look(): void {
    const { id } = this.connection.getGeneration();
    if (id === this.generation) return;
    this.generation = id;
    this.last = performance.now();
    this.first ??= this.last;
  }
}
