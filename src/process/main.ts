/**
 * The command. Heavy parts are imported only once they are needed, so that `--version`, `--help` and a wrong flag
 * answer at once.
 */
import { parseCommandLine } from '../config/command-line.js';
import { ConfigError } from '../config/errors.js';
import { commandNamed } from './commands.js';
import { exitCodes, FatalError } from './exit-codes.js';

/** One line on standard error: what is wrong and what to do. */
function complain(message: string): void {
  process.stderr.write(`kube-proxy: ${message.replaceAll('\n', ' ')}\n`);
}

/** @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    const command = await commandNamed(args[0]);
    if (command !== undefined) return await command(args.slice(1));
    const commandLine = parseCommandLine(args);
    for (const line of commandLine.deprecations) process.stderr.write(`${line}\n`);
    const { help, version } = commandLine.control;
    if (help) {
      const { helpText } = await import('../config/help.js');
      process.stdout.write(helpText());
      return exitCodes.ok;
    }
    if (version === 'true' || version === 'raw') {
      const { KUBERNETES_VERSION } = await import('../config/kubernetes-version.js');
      const { rawVersionText, versionText } = await import('./version.js');
      process.stdout.write((version === 'raw' ? rawVersionText : versionText)(KUBERNETES_VERSION));
      return exitCodes.ok;
    }
    const { loadConfig } = await import('../config/config.js');
    const config = loadConfig(commandLine);
    if (config.writeConfigTo !== '') {
      const { writeConfig } = await import('./write-config.js');
      writeConfig(config);
      return exitCodes.ok;
    }
    if (config.cleanup) {
      const { cleanup } = await import('./cleanup.js');
      return await cleanup();
    }
    const { runProxy } = await import('./run.js');
    return await runProxy(config, (read) => loadConfig(commandLine, read));
  } catch (error) {
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
