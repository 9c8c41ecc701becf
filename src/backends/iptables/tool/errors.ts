/** What can go wrong with the tools. The message says what to do. */

export type IptablesErrorCode =
  /** A program is not in PATH. */
  | 'IPTABLES_MISSING'
  /** Somebody else has held the lock for too long. */
  | 'IPTABLES_LOCKED'
  /** No privilege. */
  | 'IPTABLES_PERMISSION'
  /** The kernel lacks the table or all of iptables. */
  | 'IPTABLES_KERNEL'
  /** The tool did not end in time and was ended. */
  | 'IPTABLES_TIMEOUT'
  /** The tool or the kernel rejected the rules. */
  | 'IPTABLES_REJECTED'
  /** The tool can't read a table, because of a rule that it has not written. */
  | 'IPTABLES_UNREADABLE'
  /** What was written was gone again at once. */
  | 'IPTABLES_UNDONE';

export class IptablesError extends Error {
  constructor(
    readonly code: IptablesErrorCode,
    message: string,
    options?: ErrorOptions,
    /** The line of the input that is at fault, where the tool tells. */
    readonly line?: string,
  ) {
    super(message, options);
  }
}
