/**
 * A clock that stands still until it is told to go on, for programs that wait for minutes: timers, Date.now(),
 * performance.now() and Math.random() of the whole process. Between two times everything that is ready runs to its end.
 */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import { traffic } from '../apiserver/wire.js';

interface Entry {
  readonly id: number;
  at: number;
  readonly every: number | undefined;
  readonly delay: number;
  readonly work: () => void;
}

/** What setTimeout returns, as far as it is used. */
class VirtualTimer {
  constructor(
    readonly entry: Entry,
    private readonly time: VirtualTime,
  ) {}

  refresh(): this {
    this.time.again(this.entry);
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  hasRef(): boolean {
    return true;
  }
  [Symbol.toPrimitive](): number {
    return this.entry.id;
  }
}

/** Rounds of the event loop without any traffic after which nothing is going on. */
const quietRounds = 4;

export class VirtualTime {
  /** Milliseconds since this clock began. */
  now = 0;
  private readonly entries = new Map<number, Entry>();
  private nextId = 1;
  private readonly kept = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
    dateNow: Date.now,
    random: Math.random,
    setImmediate: globalThis.setImmediate,
  };

  /** From here to uninstall() the process has no other time. */
  install(random: Random): void {
    const begin = 1_800_000_000_000;
    const schedule =
      (repeats: boolean) =>
      (work: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
        const delay = Math.max(1, Number.isFinite(ms) ? ms : 1);
        const entry: Entry = {
          id: this.nextId++,
          at: this.now + delay,
          every: repeats ? delay : undefined,
          delay,
          work: () => {
            work(...args);
          },
        };
        this.entries.set(entry.id, entry);
        return new VirtualTimer(entry, this);
      };
    const clear = (timer: unknown): void => {
      if (timer instanceof VirtualTimer) this.entries.delete(timer.entry.id);
    };
    Object.assign(globalThis, {
      setTimeout: schedule(false),
      setInterval: schedule(true),
      clearTimeout: clear,
      clearInterval: clear,
    });
    Date.now = () => begin + Math.floor(this.now);
    Object.defineProperty(performance, 'now', { configurable: true, value: () => this.now });
    Math.random = () => random.next() / 2 ** 32;
  }

  uninstall(): void {
    const { setTimeout, clearTimeout, setInterval, clearInterval, dateNow, random } = this.kept;
    Object.assign(globalThis, { setTimeout, clearTimeout, setInterval, clearInterval });
    Date.now = dateNow;
    Math.random = random;
    // What stands on the prototype is there again.
    Reflect.deleteProperty(performance, 'now');
    this.entries.clear();
  }

  again(entry: Entry): void {
    if (!this.entries.has(entry.id)) return;
    entry.at = this.now + entry.delay;
  }

  /** Lets everything happen that happens in so many milliseconds. */
  async pass(ms: number): Promise<void> {
    await this.until(() => false, ms);
  }

  /** @returns whether it became so in time */
  async until(isSo: () => boolean, ms: number): Promise<boolean> {
    const end = this.now + ms;
    for (;;) {
      await this.settle();
      if (isSo()) return true;
      let next: Entry | undefined;
      for (const entry of this.entries.values()) {
        if (next === undefined || entry.at < next.at) next = entry;
      }
      if (next === undefined || next.at > end) {
        this.now = Math.max(this.now, end);
        return false;
      }
      this.now = Math.max(this.now, next.at);
      if (next.every === undefined) this.entries.delete(next.id);
      else next.at = this.now + next.every;
      next.work();
    }
  }

  /** Until nothing moves any more. */
  private async settle(): Promise<void> {
    let pieces = traffic.pieces;
    for (let quiet = 0; quiet < quietRounds; quiet++) {
      await new Promise<void>((resolve) => {
        this.kept.setImmediate(resolve);
      });
      if (pieces === traffic.pieces) continue;
      pieces = traffic.pieces;
      quiet = -1;
    }
  }
}
