/**
 * The command. Heavy parts are imported only once they are needed, so that `--version`, `--help` and a wrong flag
 * answer at once.
 */
import { parseCommandLine } from '../config/flags/command-line.js';
import { ConfigError } from '../config/errors.js';
import { commandNamed } from './commands.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

/** One line on standard error: what is wrong and what to do; an object where log lines are. */
async function complain(message: string, json: boolean): Promise<void> {
  if (!json) {
    process.stderr.write(`kube-proxy: ${message.replaceAll('\n', ' ')}\n`);
    return;
  }
  const { createLogger } = await import('../log/logger.js');
  createLogger({ format: 'json', verbosity: 0, write: (line) => void process.stderr.write(line) }).error(
    message,
  );
}

/** @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  let json = false;
  try {
    const command = await commandNamed(args[0]);
    if (command !== undefined) return await command(args.slice(1));
    const commandLine = parseCommandLine(args);
    json = commandLine.given.get('logging-format') === 'json';
    for (const line of commandLine.deprecations) process.stderr.write(`${line}\n`);
    const { help, version } = commandLine.control;
    if (help) {
      const { helpText } = await import('../config/flags/help.js');
      process.stdout.write(helpText());
      return exitCodes.ok;
    }
    if (version === 'true' || version === 'raw') {
      const { kubernetesRelease } = await import('../version/kubernetes-version.js');
      const { rawVersionText, versionText } = await import('../version/version.js');
      process.stdout.write((version === 'raw' ? rawVersionText : versionText)(kubernetesRelease));
      return exitCodes.ok;
    }
    const { loadConfig } = await import('../config/config.js');
    const config = loadConfig(commandLine);
    json = config.logging.format === 'json';
    if (config.writeConfigTo !== '') {
      const { writeConfig } = await import('./write-config.js');
      writeConfig(config);
      return exitCodes.ok;
    }
    if (config.cleanup) {
      const { cleanup } = await import('./cleanup.js');
      return await cleanup();
    }
    const { runProxy } = await import('../app/run.js');
    return await runProxy(config, (read) => loadConfig(commandLine, read));
  } catch (error) {
    if (error instanceof ConfigError) {
      for (const problem of error.problems) await complain(problem, json);
      return exitCodes.configuration;
    }
    if (error instanceof FatalError) {
      await complain(error.message, json);
      return error.exitCode;
    }
    await complain(
      `unexpected failure, please report it: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      json,
    );
    return exitCodes.failure;
  }
}
