/** `--write-config-to`: the configuration in force as a file that `--config` reads back. */
import { writeFileSync } from 'node:fs';
import type { Config } from '../config/config.js';
import { ConfigError } from '../config/errors.js';
import { configYaml } from '../config/file/versioned.js';
import { createLogger, errorText } from '../log/logger.js';

/** @throws ConfigError when the file can't be written */
export function writeConfig(config: Config): void {
  const file = config.writeConfigTo;
  try {
    writeFileSync(file, configYaml(config));
  } catch (error) {
    throw new ConfigError([`--write-config-to: cannot write ${file}: ${errorText(error)}`], { cause: error });
  }
  const log = createLogger(config.logging);
  for (const warning of config.warnings) log.warn(warning);
  log.info('Wrote configuration', { file });
}
