/**
 * A command line or configuration that can't be used. Every problem names the flag or field, its value and what is allowed.
 */
export class ConfigError extends Error {
  readonly code = 'CONFIG_INVALID';

  /** @param problems one per wrong setting: all of them are told at once. */
  constructor(
    readonly problems: readonly string[],
    options?: ErrorOptions,
  ) {
    super(problems.join('; '), options);
  }
}
