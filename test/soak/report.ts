/** What a soak has done, as it goes and in the end. */

interface Repairs {
  count: number;
  readonly ms: number[];
}

export interface Memory {
  /** Seconds since the beginning of the soak. */
  readonly at: number;
  /** Resident, MiB. */
  readonly memory: number;
  readonly files: number;
}

export class Report {
  readonly begun = performance.now();
  steps = 0;
  changes = 0;
  troubles = 0;
  configurations = 0;
  /** Ended by itself for a documented reason, and started again. */
  startedAgain = 0;
  readonly kills = { SIGKILL: 0, SIGTERM: 0 };
  packets = 0;
  comparisons = 0;
  addresses = 0;
  held = 0;
  /** In words; one is enough for failure. */
  readonly mismatches: string[] = [];
  /** Milliseconds from a change to the kernel's last transaction for it, by what was done. */
  readonly following = new Map<string, number[]>();
  /** From the damage to the last transaction of its repair, by kind of attack. */
  readonly repairs = new Map<string, Repairs>();
  /** Of the process that lives all along. */
  readonly usage: Memory[] = [];
  private readonly last: string[] = [];

  get seconds(): number {
    return (performance.now() - this.begun) / 1000;
  }

  /** One line of the story; the last thirty steps are told when something goes wrong. */
  tell(what: string): void {
    this.last.push(`${this.seconds.toFixed(1).padStart(7)} s  ${what}`);
    if (this.last.length > 60) this.last.shift();
  }

  get story(): string {
    return this.last.join('\n');
  }

  followed(what: string, ms: number): void {
    const known = this.following.get(what);
    if (known === undefined) this.following.set(what, [ms]);
    else known.push(ms);
  }

  /** @param ms undefined: nothing had to be repaired */
  repaired(kind: string, ms: number | undefined): void {
    const known = this.repairs.get(kind) ?? { count: 0, ms: [] };
    known.count++;
    if (ms !== undefined) known.ms.push(ms);
    this.repairs.set(kind, known);
  }

  get progress(): string {
    const { memory = 0, files = 0 } = this.usage.at(-1) ?? {};
    const kills = this.kills.SIGKILL + this.kills.SIGTERM;
    return (
      `${this.seconds.toFixed(0).padStart(4)} s  ${this.steps} steps, ${this.changes} changes, ` +
      `${sum([...this.repairs.values()].map(({ count }) => count))} attacks, ${this.troubles} troubles, ${kills} kills, ` +
      `${this.packets} packets, ${this.mismatches.length} mismatches, ${memory.toFixed(0)} MiB, ${files} files`
    );
  }

  /**
   * Memory and open files of the process that lives all along: medians of two fifths of the time, the second and the last. In
   * the first the program is compiled, function by function as each is used often; and one moment tells little, because
   * garbage comes and goes.
   */
  growth(): { readonly from: Memory; readonly to: Memory } | undefined {
    const end = this.usage.at(-1)?.at ?? 0;
    const between = (from: number, to: number): Memory[] =>
      this.usage.filter(({ at }) => at >= end * from && at <= end * to);
    const [second, last] = [between(0.2, 0.4), between(0.8, 1)];
    if (second.length < 3 || last.length < 3) return undefined;
    return { from: middle(second), to: middle(last) };
  }

  table(title: string): string {
    const rows: (readonly [string, string])[] = [
      ['steps', String(this.steps)],
      ['objects changed', String(this.changes)],
      ['troubles of the API server', String(this.troubles)],
      ['configuration exchanged', String(this.configurations)],
      ['killed with SIGKILL, SIGTERM', `${this.kills.SIGKILL}, ${this.kills.SIGTERM}`],
      ['started again after the API server had refused it', String(this.startedAgain)],
      ['comparisons of kernel and objects', String(this.comparisons)],
      ['packets: connections and datagrams', String(this.packets)],
      ['answers over connections and flows that were held', String(this.held)],
    ];
    const growth = this.growth();
    if (growth !== undefined) {
      const { from, to } = growth;
      const share = (to.memory / from.memory - 1) * 100;
      rows.push([
        'resident memory, process that lived all along',
        `${from.memory.toFixed(1)} MiB after ${from.at.toFixed(0)} s, ${to.memory.toFixed(1)} MiB after ${to.at.toFixed(0)} s (${share >= 0 ? '+' : ''}${share.toFixed(1)} %)`,
      ]);
      rows.push(['open files of it', `${from.files}, ${to.files}`]);
    }
    rows.push(['mismatches', String(this.mismatches.length)]);
    const width = Math.max(...rows.map(([name]) => name.length));
    const lines = rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
    return [title, '', ...lines, '', ...this.times()].join('\n');
  }

  private times(): string[] {
    const rows: string[] = [];
    const row = (name: string, count: number, ms: readonly number[]): void => {
      const times =
        ms.length === 0
          ? ''
          : `${quantile(ms, 0.5).toFixed(1).padStart(9)} ${Math.max(...ms)
              .toFixed(1)
              .padStart(9)}`;
      rows.push(`${name.padEnd(44)} ${String(count).padStart(6)} ${times}`);
    };
    rows.push(
      `${'milliseconds to the last transaction'.padEnd(44)} ${'times'.padStart(6)} ${'p50'.padStart(9)} ${'max'.padStart(9)}`,
    );
    for (const [what, ms] of [...this.following].sort()) row(what, ms.length, ms);
    for (const [kind, { count, ms }] of [...this.repairs].sort()) row(`attack: ${kind}`, count, ms);
    return rows;
  }
}

function middle(values: readonly Memory[]): Memory {
  return {
    at: quantile(
      values.map(({ at }) => at),
      0.5,
    ),
    memory: quantile(
      values.map(({ memory }) => memory),
      0.5,
    ),
    files: quantile(
      values.map(({ files }) => files),
      0.5,
    ),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
}
