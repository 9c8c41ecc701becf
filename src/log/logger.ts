/**
 * Structured logging, as kube-proxy has it: klog text or JSON lines (line.ts), to standard error or split over both streams
 * (output.ts), with a verbosity that can change while the program runs.
 */
import { callerOf } from './caller.js';
import { jsonLine, textLine, type LogFields, type Severity } from './line.js';
import { Output, standardStreams, type OutputSettings, type Streams } from './output.js';
import { Vmodule, type VmoduleItem } from './vmodule.js';

export { errorText, type LogFields } from './line.js';

export interface Logger {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, error?: unknown, fields?: LogFields): void;
  /**
   * Printed only when the verbosity (`--v`, `--vmodule`) is at least `level`. A field that is a function is called when the line
   * is printed: for values that cost something.
   */
  debug(level: number, message: string, fields?: LogFields): void;
  /** A logger whose lines name another part of the program. */
  named(room: string): Logger;
}

/** What `--v`, `--vmodule`, `--logging-format` and the like say. */
export interface LogSettings extends OutputSettings {
  readonly format: 'text' | 'json';
  readonly verbosity: number;
  readonly vmodule?: readonly VmoduleItem[];
}

/** The logger at the top, which all others follow. */
export interface RootLogger extends Logger {
  /** As `debug`, without quotes and fields: for lines that tools look for. */
  plain(level: number, line: string): void;
  /** Takes other settings. */
  configure(settings: LogSettings): void;
  /** Takes another verbosity, until settings are taken again: what `/debug/flags/v` does. */
  setVerbosity(verbosity: number): void;
  readonly verbosity: number;
  /** Writes what is held back. */
  flush(): void;
}

export interface LogOptions extends LogSettings {
  /** Receives every line, line feed included, instead of the streams of the process; for tests. */
  readonly write?: (line: string) => void;
  readonly streams?: Streams;
  /** Milliseconds since the epoch; for tests. */
  readonly now?: () => number;
}

export function createLogger(options: LogOptions): RootLogger {
  const { write, now = Date.now } = options;
  const streams =
    options.streams ?? (write === undefined ? standardStreams() : { info: write, error: write });
  const output = new Output(streams, options);
  let settings: LogSettings = options;
  let vmodule = new Vmodule(options.vmodule ?? []);

  const logger = (room: string): Logger & Pick<RootLogger, 'plain'> => {
    /** @param logged the method that was called */
    const emit = (
      logged: (...args: never[]) => void,
      severity: Severity,
      message: string,
      error: unknown,
      level: number,
      fields: LogFields = {},
      plain = false,
    ): void => {
      const caller = callerOf(logged);
      const time = now();
      const entry = {
        severity,
        time,
        caller,
        logger: room,
        message,
        plain,
        error,
        level,
        fields: known(fields),
      };
      output.write(severity, settings.format === 'json' ? jsonLine(entry) : textLine(entry));
    };
    const enabled = (logged: (...args: never[]) => void, level: number): boolean =>
      level <= settings.verbosity ||
      (!vmodule.empty &&
        level <= (vmodule.verbosityOf(room) ?? vmodule.verbosityOf(callerOf(logged).file) ?? 0));
    const info: Logger['info'] = (message, fields) => {
      emit(info, 'I', message, undefined, 0, fields);
    };
    const warn: Logger['warn'] = (message, fields) => {
      emit(warn, 'W', message, undefined, 0, fields);
    };
    const error: Logger['error'] = (message, thrown, fields) => {
      emit(error, 'E', message, thrown, 0, fields);
    };
    const debug: Logger['debug'] = (level, message, fields) => {
      if (enabled(debug, level)) emit(debug, 'I', message, undefined, level, fields);
    };
    const plain: RootLogger['plain'] = (level, line) => {
      if (enabled(plain, level)) emit(plain, 'I', line, undefined, level, {}, true);
    };
    return { info, warn, error, debug, plain, named: logger };
  };

  return {
    ...logger(''),
    configure: (next) => {
      settings = next;
      vmodule = new Vmodule(next.vmodule ?? []);
      output.configure(next);
    },
    setVerbosity: (verbosity) => {
      settings = { ...settings, verbosity };
    },
    get verbosity() {
      return settings.verbosity;
    },
    flush: () => {
      output.flush();
    },
  };
}

/** @returns the fields with a value for each function */
function known(fields: LogFields): LogFields {
  const values = Object.entries(fields);
  if (!values.some(([, value]) => typeof value === 'function')) return fields;
  return Object.fromEntries(
    values.map(([name, value]) => [name, typeof value === 'function' ? (value as () => unknown)() : value]),
  );
}

/** A logger that says nothing, for tests and libraries used on their own. */
export const silentLogger: Logger = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  debug: () => undefined,
  named: () => silentLogger,
};
