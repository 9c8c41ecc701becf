/**
 * The command. Heavy parts are imported only once they are needed, so that `--version`, `--help` and a wrong flag
 * answer at once.
 */
import { ConfigError, UsageError } from '../config/errors.js';
import { helpText, parseFlags } from '../config/flags.js';
import { exitCodes, FatalError } from './exit-codes.js';
import { version } from './version.js';

/** One line on standard error: what is wrong and what to do. */
function complain(message: string): void {
  process.stderr.write(`kube-proxy: ${message.replaceAll('\n', ' ')}\n`);
}

/** @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    const values = parseFlags(args);
    if (values.get('help') === 'true') {
      process.stdout.write(helpText());
      return exitCodes.ok;
    }
    if (values.get('version') === 'true') {
      process.stdout.write(`kube-proxy-ts v${version}\n`);
      return exitCodes.ok;
    }
    const { loadConfig } = await import('../config/config.js');
    const config = loadConfig(values);
    if (config.cleanup) {
      const { cleanup } = await import('./cleanup.js');
      cleanup();
      return exitCodes.ok;
    }
    const { runProxy } = await import('./run.js');
    return await runProxy(config, () => loadConfig(values));
  } catch (error) {
    if (error instanceof UsageError) {
      complain(error.message);
      return exitCodes.configuration;
    }
    if (error instanceof ConfigError) {
      for (const problem of error.problems) complain(problem);
      return exitCodes.configuration;
    }
    if (error instanceof FatalError) {
      complain(error.message);
      return error.exitCode;
    }
    complain(
      `unexpected failure, please report it: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    );
    return exitCodes.failure;
  }
}
