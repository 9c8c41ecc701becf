/** A line of the log in the two layouts that kube-proxy has: text as klog writes it, and JSON. */
import type { Caller } from './caller.js';

export type LogFields = Readonly<Record<string, unknown>>;

/** I: information, W: warning, E: error. */
export type Severity = 'I' | 'W' | 'E';

export interface Entry {
  readonly severity: Severity;
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly caller: Caller;
  /** Name of the logger; empty: the one at the top. */
  readonly logger: string;
  readonly message: string;
  /** The message is a whole line of its own: text leaves it without quotes. */
  readonly plain: boolean;
  /** What was thrown; undefined: nothing. */
  readonly error: unknown;
  /** Of an information: from which verbosity on it is printed. */
  readonly level: number;
  readonly fields: LogFields;
}

/** One line for people from anything that was thrown: message chain, no stack. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return typeof error === 'string' ? error : JSON.stringify(error ?? null);
  const cause = error.cause instanceof Error ? error.cause.message : undefined;
  return cause === undefined || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}

/** `I1121 13:00:00.000000      42 sync-loop.js:120] "message" err="…" logger="sync" key="value"` and a line feed. */
export function textLine(entry: Entry): string {
  const { severity, time, caller, logger, error, fields } = entry;
  const pid = String(process.pid).padStart(7);
  const message = entry.plain ? entry.message : JSON.stringify(entry.message);
  let line = `${severity}${klogTime(time)} ${pid} ${caller.file}:${caller.line}] ${message}`;
  if (error !== undefined) line += ` err=${JSON.stringify(errorText(error))}`;
  if (logger !== '') line += ` logger=${JSON.stringify(logger)}`;
  for (const [key, value] of Object.entries(fields)) line += ` ${key}=${textValue(value)}`;
  return `${line}\n`;
}

/** An object with upstream's members, and `severity` for warnings and errors, which upstream does not tell apart. */
export function jsonLine({ severity, time, caller, logger, message, error, level, fields }: Entry): string {
  const record: Record<string, unknown> = { ts: time };
  if (logger !== '') record['logger'] = logger;
  record['caller'] = `${caller.folder === '' ? '' : `${caller.folder}/`}${caller.file}:${caller.line}`;
  record['msg'] = message;
  if (severity === 'I') record['v'] = level;
  else record['severity'] = severity === 'E' ? 'error' : 'warning';
  if (error !== undefined) record['err'] = errorText(error);
  for (const [key, value] of Object.entries(fields)) {
    record[Object.hasOwn(record, key) ? `${key}_` : key] = value instanceof Error ? errorText(value) : value;
  }
  return `${JSON.stringify(record)}\n`;
}

function textValue(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (value instanceof Error) return JSON.stringify(errorText(value));
  return JSON.stringify(value ?? null);
}

function klogTime(milliseconds: number): string {
  const time = new Date(milliseconds);
  const two = (n: number): string => String(n).padStart(2, '0');
  const date = `${two(time.getMonth() + 1)}${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date} ${clock}.${String(time.getMilliseconds()).padStart(3, '0')}000`;
}
