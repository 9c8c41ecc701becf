/**
 * Structured logging in the two formats that kube-proxy has: klog text (`I1121 13:00:00.000000 42 room] "msg" k="v"`)
 * and JSON lines. Everything goes to standard error, as upstream's does.
 */

export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, error?: unknown, fields?: LogFields): void;
  /** Printed only when the verbosity (`--v`) is at least `level`. */
  debug(level: number, message: string, fields?: LogFields): void;
  /** A logger whose lines name another part of the program. */
  named(room: string): Logger;
}

export interface LogOptions {
  readonly format: 'text' | 'json';
  readonly verbosity: number;
  /** Receives whole lines, line feed included. Standard error when absent. */
  readonly write?: (line: string) => void;
  /** Milliseconds since the epoch; for tests. */
  readonly now?: () => number;
}

type Severity = 'I' | 'W' | 'E';

/** One line for people from anything that was thrown: message chain, no stack. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : JSON.stringify(error ?? null);
  const cause = error.cause instanceof Error ? error.cause.message : undefined;
  return cause === undefined || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}

function textValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value instanceof Error) return JSON.stringify(errorText(value));
  return JSON.stringify(value ?? null);
}

function klogTime(time: Date): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  const date = `${two(time.getMonth() + 1)}${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date} ${clock}.${String(time.getMilliseconds()).padStart(3, '0')}000`;
}

export function createLogger(options: LogOptions, room = 'kube-proxy'): Logger {
  const write = options.write ?? ((line: string): void => void process.stderr.write(line));
  const now = options.now ?? Date.now;

  const emit = (
    severity: Severity,
    message: string,
    error: unknown,
    level: number,
    fields: LogFields,
  ): void => {
    const time = new Date(now());
    if (options.format === 'json') {
      const record: Record<string, unknown> = { ts: time.getTime(), logger: room, msg: message };
      if (severity === 'I') record['v'] = level;
      else record['severity'] = severity === 'E' ? 'error' : 'warning';
      if (error !== undefined) record['err'] = errorText(error);
      for (const [key, value] of Object.entries(fields)) {
        record[key] = value instanceof Error ? errorText(value) : value;
      }
      write(`${JSON.stringify(record)}\n`);
      return;
    }
    let line = `${severity}${klogTime(time)} ${String(process.pid).padStart(7)} ${room}] ${JSON.stringify(message)}`;
    if (error !== undefined) line += ` err=${textValue(errorText(error))}`;
    for (const [key, value] of Object.entries(fields)) line += ` ${key}=${textValue(value)}`;
    write(`${line}\n`);
  };

  return {
    info: (message, fields = {}) => {
      emit('I', message, undefined, 0, fields);
    },
    warn: (message, fields = {}) => {
      emit('W', message, undefined, 0, fields);
    },
    error: (message, error, fields = {}) => {
      emit('E', message, error, 0, fields);
    },
    debug: (level, message, fields = {}) => {
      if (level <= options.verbosity) emit('I', message, undefined, level, fields);
    },
    named: (other) => createLogger(options, other),
  };
}

/** A logger that says nothing, for tests and libraries used on their own. */
export const silentLogger: Logger = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  debug: () => undefined,
  named: () => silentLogger,
};
