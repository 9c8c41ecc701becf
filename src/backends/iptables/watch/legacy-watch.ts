/** Looks now and then at the tables of the legacy kind, of whose changes nobody tells. */
import { guarded } from '../../../callbacks/guarded.js';

/** A look without a change is one call of the kernel per table. */
const periodMs = 400;

export class LegacyWatch {
  private readonly timer: NodeJS.Timeout;
  private isLooking = false;

  constructor(private readonly families: readonly { checkTables(): Promise<void> }[]) {
    this.timer = setInterval(
      guarded('look at the tables', () => this.look()),
      periodMs,
    ).unref();
  }

  close(): void {
    clearInterval(this.timer);
  }

  private async look(): Promise<void> {
    if (this.isLooking) return;
    this.isLooking = true;
    try {
      for (const family of this.families) await family.checkTables();
    } finally {
      this.isLooking = false;
    }
  }
}
