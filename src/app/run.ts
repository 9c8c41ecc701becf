/**
 * The life of the process: what has to be true before anything starts, signals, a changed configuration. The proxy
 * itself (proxy.ts) may be started over in place; the rules in the kernel stay through all of it.
 */
import { guarded, reportCallbackFailures } from '../callbacks/guarded.js';
import { compareConfigs } from '../config/file/compare.js';
import type { Config } from '../config/config.js';
import { openNftables } from '../backends/nft/open.js';
import { ConfigError } from '../config/errors.js';
import { flagLines } from '../config/flags/help.js';
import type { ReadFile } from '../config/sources.js';
import { configz } from '../config/file/versioned.js';
import { ConfigFileWatcher } from '../config/file/watch.js';
import { createLogger, errorText, type RootLogger } from '../log/logger.js';
import { exitCodes } from '../exit/exit-codes.js';
import { droppingChains, HostSettings } from './host-settings.js';
import { chooseMode, type ChosenMode } from './choose-mode.js';
import { Observability, observabilitySettings, ServerStartError } from './observability.js';
import { Proxy } from './proxy.js';
import { checkSource } from './source-check.js';
import { reportFatalError } from './source.js';
import { version } from '../version/version.js';

/**
 * Runs until a signal or a fatal error.
 *
 * @param reload reads the configuration again, the file with `read` if that is given. @throws ConfigError
 * @returns the exit code. @throws FatalError
 */
export async function runProxy(config: Config, reload: (read?: ReadFile) => Config): Promise<number> {
  // What can't work says so in one line, and nothing else happened.
  if (!config.initOnly) await checkSource(config);
  const log = createLogger(config.logging);
  for (const line of flagLines(config.flags)) log.plain(1, line);
  for (const warning of config.warnings) log.warn(warning);
  if (config.initOnly) {
    const hostSettings = new HostSettings(log);
    hostSettings.prepareAll(config);
    hostSettings.stop();
    log.info('Privileged initialization complete, exiting because of --init-only');
    return exitCodes.ok;
  }
  return await new Process(config, reload, log).run();
}

class Process {
  private mode: ChosenMode;
  private readonly hostSettings: HostSettings;
  private proxy: Proxy | undefined;
  private observability: Observability | undefined;
  /** The settings that the servers were started with. */
  private observedSettings = '';
  private ending = false;

  constructor(
    private config: Config,
    private readonly reload: (read?: ReadFile) => Config,
    private readonly log: RootLogger,
  ) {
    this.hostSettings = new HostSettings(log);
    this.mode = chooseMode(config);
    log.info('Starting kube-proxy-ts', {
      version,
      node: config.nodeName,
      mode: this.mode.mode.name,
      why: this.mode.reason,
    });
  }

  async run(): Promise<number> {
    reportCallbackFailures((what, error) => {
      this.log.error(`Failed to ${what}`, error);
    });
    const onEnd = (signal: NodeJS.Signals): void => {
      // A second one means it.
      if (this.ending) process.exit(exitCodes.failure);
      this.ending = true;
      this.log.info('Shutting down, rules stay in place', { signal });
      this.proxy?.end();
    };
    const onHangUp = guarded('take over the configuration', () => {
      this.takeConfiguration('SIGHUP', () => this.reload());
    });
    process.on('SIGTERM', onEnd).on('SIGINT', onEnd).on('SIGHUP', onHangUp);
    const watcher = this.watchFile();
    try {
      this.warnOfDroppingChains();
      for (;;) {
        this.hostSettings.protect(this.config);
        const observability = await this.observe();
        if (this.isEnding()) break;
        this.proxy = new Proxy(this.config, this.mode, this.log, observability, () => {
          this.hostSettings.prepare(this.config);
        });
        await this.proxy.run();
        if (this.isEnding()) break;
      }
      return exitCodes.ok;
    } finally {
      watcher?.close();
      this.observability?.close();
      this.hostSettings.stop();
      process.off('SIGTERM', onEnd).off('SIGINT', onEnd).off('SIGHUP', onHangUp);
    }
  }

  /** A signal may have come while something else was waited for. */
  private isEnding(): boolean {
    return this.ending;
  }

  /** The servers stay as they are as long as nothing about them changes. @throws FatalError */
  private async observe(): Promise<Observability> {
    const { config, mode, log } = this;
    const settings = JSON.stringify([
      observabilitySettings(config),
      mode.mode.name,
      mode.automatic,
      mode.reason,
    ]);
    if (this.observability !== undefined && this.observedSettings === settings) return this.observability;
    this.observability?.close();
    const observability = new Observability({
      config,
      mode,
      log,
      setVerbosity: (verbosity) => {
        log.setVerbosity(verbosity);
      },
      configz: () => configz(this.config),
      flagz: () => new Map(Object.entries(this.config.flags)),
    });
    this.observability = observability;
    this.observedSettings = settings;
    try {
      await observability.start();
    } catch (error) {
      if (error instanceof ServerStartError) await reportFatalError(config, log, error.event);
      throw error;
    }
    return observability;
  }

  /** Who comes from mode iptables without knowing should know the one thing that nftables can't do. */
  private warnOfDroppingChains(): void {
    if (!this.mode.automatic || this.mode.mode.acceptsForHost) return;
    const connection = openNftables();
    try {
      for (const hook of ['forward', 'input'] as const) {
        const chains = droppingChains(connection, hook);
        if (chains.length === 0) continue;
        this.log.warn(
          `A firewall of this node drops ${hook === 'forward' ? 'forwarded' : 'incoming'} packets that it does not accept itself; unlike mode iptables, mode nftables can't accept for it`,
          { chains, see: 'docs/troubleshooting.md' },
        );
      }
    } finally {
      connection.close();
    }
  }

  /** @returns undefined when the configuration is not in a file */
  private watchFile(): ConfigFileWatcher | undefined {
    const { configFile } = this.config;
    if (configFile === '') return undefined;
    const why = `${configFile} changed`;
    const watcher = new ConfigFileWatcher(configFile, {
      current: this.config,
      load: this.reload,
      onChange: (next) => {
        this.takeConfiguration(why, () => next);
      },
      onError: (error) => {
        this.takeConfiguration(why, () => {
          throw error;
        });
      },
    });
    watcher.start();
    return watcher;
  }

  /** Lets what changed in the configuration act. What can't be used changes nothing. */
  private takeConfiguration(why: string, load: () => Config): void {
    const { log } = this;
    let next: Config;
    let mode: ChosenMode;
    try {
      next = load();
      mode = chooseMode(next);
    } catch (error) {
      const problems = error instanceof ConfigError ? error.problems : [errorText(error)];
      for (const problem of problems)
        log.error('Configuration rejected, keeping the previous one', problem, { why });
      return;
    }
    const { changes, onlyLogging } = compareConfigs(this.config, next);
    const changed = changes.map(({ path }) => path);
    this.config = next;
    this.mode = mode;
    if (changed.length === 0) {
      log.info('Configuration unchanged, resyncing', { why });
      this.proxy?.compareAll();
      return;
    }
    log.configure(next.logging);
    for (const warning of next.warnings) log.warn(warning);
    if (onlyLogging) {
      log.info('Logging settings reloaded', { why, changed });
      return;
    }
    this.proxy?.startOver(`the configuration changed (${changed.join(', ')})`);
  }
}
