/** Credentials on disk that somebody else renews: while they can't be read, what was read last stands in for them. */
import { errorText, type Logger } from '../../../log/logger.js';

export class LastGood<T> {
  private readonly log: Logger;
  private readonly readNow: () => Promise<T>;
  private held: { readonly value: T } | undefined;
  private failing = false;

  constructor(log: Logger, read: () => Promise<T>) {
    this.log = log;
    this.readNow = read;
  }

  /** @throws what reading throws, when it never succeeded */
  async read(): Promise<T> {
    try {
      const value = await this.readNow();
      this.held = { value };
      this.failing = false;
      return value;
    } catch (error) {
      if (this.held === undefined) throw error;
      if (!this.failing) {
        this.failing = true;
        this.log.warn('Failed to read credentials, using those read before', { err: errorText(error) });
      }
      return this.held.value;
    }
  }
}
