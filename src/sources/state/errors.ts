/** Why a state file is not used. None of these ends the process: it goes on as if there were no file. */
export type StateFileErrorCode =
  | 'STATE_FILE_UNREADABLE'
  | 'STATE_FILE_UNSAFE'
  | 'STATE_FILE_UNKNOWN'
  | 'STATE_FILE_VERSION'
  | 'STATE_FILE_FOREIGN'
  | 'STATE_FILE_CORRUPT'
  | 'STATE_FILE_TOO_OLD';

export class StateFileError extends Error {
  override readonly name = 'StateFileError';

  constructor(
    readonly code: StateFileErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
