/** A setting that can't be used. The message names the flag or field, its value and what is allowed. */
export class ConfigError extends Error {
  readonly code = 'CONFIG_INVALID';

  /** @param problems one per wrong setting: all of them are told at once. */
  constructor(readonly problems: readonly string[]) {
    super(problems.join('; '));
  }
}

/** A command line that can't be read. */
export class UsageError extends Error {
  readonly code = 'USAGE';
}
