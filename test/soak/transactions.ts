/** When the kernel's nf_tables rules changed, in the network namespace of the calling thread, whoever but one did it. */
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';

const everyMs = 1;

export class Transactions {
  /** performance.now() of the first and the last change since forget(). */
  first: number | undefined;
  last: number | undefined;
  private readonly connection = NftablesConnection.open();
  private readonly timer: NodeJS.Timeout;
  private generation: number;

  /** @param ignored how many transactions there were that do not count */
  constructor(private readonly ignored: () => number = () => 0) {
    this.generation = this.current();
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
    const generation = this.current();
    if (generation === this.generation) return;
    this.generation = generation;
    this.last = performance.now();
    this.first ??= this.last;
  }

  private current(): number {
    return this.connection.getGeneration().id - this.ignored();
  }
}
