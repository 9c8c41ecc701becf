/**
 * The types that settings have. A kind knows how a value is written on the command line and how in a KubeProxyConfiguration
 * document, in both directions. Limits of a single setting are not its business (checks.ts).
 */
import { formatDuration, parseDuration } from './duration.js';

export type Json = string | number | boolean | null | readonly Json[] | { readonly [member: string]: Json };

/** Instead of a value: what is allowed, as the end of a sentence (`must be …`). */
export class Refusal {
  constructor(readonly allowed: string) {}
}

/** Method syntax on purpose: a Kind<string> is used where a Kind<unknown> is asked for, with values of its own only. */
export interface Kind<T> {
  /** As `--help` names it. */
  readonly name: string;
  /** From the command line. @param before the value of the same flag given earlier, for kinds that collect. */
  parse(text: string, before?: T): T | Refusal;
  /** For people: `--help`, `/flagz`. */
  format(value: T): string;
  /** From a document; never called with null. */
  read(data: unknown): T | Refusal;
  /** For a document. */
  write(value: T): Json;
  /** The value that a document can't tell from absence. */
  readonly zero: T;
}

function plain<T extends string | number | boolean>(
  name: string,
  zero: T,
  mustBe: string,
  parse: (text: string) => T | undefined,
  read: (data: unknown) => T | undefined,
  format: (value: T) => string = String,
): Kind<T> {
  const refusal = new Refusal(mustBe);
  return {
    name,
    zero,
    parse: (text) => parse(text) ?? refusal,
    read: (data) => read(data) ?? refusal,
    format,
    write: (value) => value,
  };
}

const textOf = (data: unknown): string | undefined => (typeof data === 'string' ? data : undefined);

export const text: Kind<string> = plain('string', '', 'must be text', textOf, textOf);

/** Text whose words the setting's check knows; `name` is what `--help` calls it. */
export const word = (name: string): Kind<string> => ({ ...text, name });

const truth: ReadonlyMap<string, boolean> = new Map([
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((spelling) => [spelling, true] as const),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((spelling) => [spelling, false] as const),
]);

export const bool: Kind<boolean> = plain(
  'bool',
  false,
  'must be true or false',
  (given) => truth.get(given),
  (data) => (typeof data === 'boolean' ? data : undefined),
);

/** A switch that may be left open: null. */
export const optionalBool: Kind<boolean | null> = {
  name: bool.name,
  zero: null,
  parse: (given) => bool.parse(given),
  read: (data) => bool.read(data),
  format: (value) => String(value ?? true),
  write: (value) => value,
};

/** Go's integer literals: decimal, 0x, 0b, 0o, and octal after a leading zero. */
function integer(given: string): number | undefined {
  const match = /^([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9]\d*)$/.exec(given);
  if (match === null) return undefined;
  const digits = match[2] ?? '';
  const value = Number(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  return match[1] === '-' && value !== 0 ? -value : value;
}

function integerKind(name: string, least: number, most: number): Kind<number> {
  const within = (value: unknown): number | undefined =>
    typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
      ? value
      : undefined;
  return plain(
    name,
    0,
    `must be a number from ${least} to ${most}`,
    (given) => within(integer(given)),
    within,
  );
}

export const maxInt32 = 2 ** 31 - 1;
export const int32 = integerKind('int32', -(2 ** 31), maxInt32);
export const level = integerKind('Level', 0, maxInt32);

export const float32: Kind<number> = plain(
  'float32',
  0,
  'must be a number',
  (given) => (/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(given) ? finite(Number(given)) : undefined),
  finite,
);

function finite(value: unknown): number | undefined {
  return typeof value === 'number' && Math.abs(value) <= 3.4028234663852886e38 ? value : undefined;
}

/** Milliseconds. */
export const duration: Kind<number> = {
  ...plain(
    'duration',
    0,
    'must be a duration such as 300ms, 5s or 1m30s',
    parseDuration,
    (data) => (typeof data === 'string' ? parseDuration(data) : undefined),
    formatDuration,
  ),
  write: formatDuration,
};

/** A duration that a document may also write as whole nanoseconds. */
export const durationOrNanoseconds: Kind<number> = {
  ...duration,
  read: (data) =>
    typeof data === 'number' && Number.isSafeInteger(data)
      ? data / 1e6
      : typeof data === 'string'
        ? duration.parse(data)
        : new Refusal('must be a duration such as 5s, or a number of nanoseconds'),
};

/** Suffixes of Kubernetes' quantities. `K` is upstream's help's, whose parser knows only `k`. */
const multiples: Readonly<Record<string, number>> = {
  ...{ '': 1, m: 1e-3, k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
};
const mostBytes = 2 ** 31;

function bytesOf(given: string): number | undefined {
  const match = /^(\d+\.?\d*(?:[eE][+-]?\d+(?![a-zA-Z]))?|\.\d+)(m|[kKMGTPE]i?|)$/.exec(given);
  const factor = multiples[match?.[2] ?? ''];
  if (match === null || factor === undefined) return undefined;
  return Math.min(Math.ceil(Number(match[1]) * factor), mostBytes);
}

/** Bytes. More than 2 GiB is taken as 2 GiB. */
export const quantity: Kind<number> = {
  ...plain('quantity', 0, 'must be a number of bytes such as 512, 64Ki or 1M', bytesOf, (data) =>
    typeof data === 'string' || typeof data === 'number' ? bytesOf(String(data)) : undefined,
  ),
  write: String,
};

/** One record of comma-separated values, quoted as in RFC 4180. */
function splitCsv(line: string): readonly string[] | undefined {
  if (line === '') return [];
  const items: string[] = [];
  let rest = line;
  for (;;) {
    const match = /^(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/.exec(rest);
    if (match === null) return undefined;
    items.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? '');
    if (match[3] === '') return items;
    rest = rest.slice(match[0].length);
  }
}

const joinCsv = (items: readonly string[]): string =>
  items.map((item) => (/[",\n]/.test(item) ? `"${item.replaceAll('"', '""')}"` : item)).join(',');

/** A list. On the command line comma-separated, and collected when the flag is given again. */
export const strings: Kind<readonly string[]> = {
  name: 'strings',
  zero: [],
  parse: (given, before = []) => {
    const items = splitCsv(given);
    return items === undefined ? new Refusal('must be a comma-separated list') : [...before, ...items];
  },
  read: (data) =>
    Array.isArray(data) && data.every((item) => typeof item === 'string')
      ? data
      : new Refusal('must be a list of texts'),
  format: (items) => `[${joinCsv(items)}]`,
  write: (items) => (items.length === 0 ? null : items),
};

export type Switches = Readonly<Record<string, boolean>>;

/** name=true pairs, comma-separated, collected when the flag is given again. */
export const switches: Kind<Switches> = {
  name: 'mapStringBool',
  zero: {},
  parse: (given, before = {}) => {
    const all: Record<string, boolean> = { ...before };
    for (const pair of given.split(',')) {
      if (pair === '') continue;
      const [name = '', value] = pair.split('=', 2).map((part) => part.trim());
      const on = truth.get(value ?? '');
      if (on === undefined) {
        return new Refusal(`${JSON.stringify(pair)} must be of the form Name=true or Name=false`);
      }
      all[name] = on;
    }
    return all;
  },
  read: (data) =>
    isObject(data) && Object.values(data).every((on): on is boolean => typeof on === 'boolean')
      ? (data as Switches)
      : new Refusal('must be a map of names to true or false'),
  format: (all) =>
    Object.keys(all)
      .sort()
      .map((name) => `${name}=${String(all[name])}`)
      .join(','),
  write: (all) => all,
};

export interface VmoduleItem {
  /** Name of a source file without its ending, or of a logger; `*` and `?` as in file names. */
  readonly filePattern: string;
  readonly verbosity: number;
}

/** pattern=N pairs; a document has a list of `{filePattern, verbosity}`. */
export const vmodule: Kind<readonly VmoduleItem[]> = {
  name: 'pattern=N,...',
  zero: [],
  parse: (given) => {
    const items: VmoduleItem[] = [];
    for (const pair of given.split(',')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      const verbosity = level.parse(pair.slice(equals + 1));
      if (equals < 0 || verbosity instanceof Refusal) {
        return new Refusal(`${JSON.stringify(pair)} does not have the pattern=N format`);
      }
      items.push({ filePattern: pair.slice(0, equals), verbosity });
    }
    return items;
  },
  read: (data) => {
    const refusal = new Refusal('must be a list of {filePattern, verbosity}');
    if (!Array.isArray(data)) return refusal;
    const items: VmoduleItem[] = [];
    for (const item of data as readonly unknown[]) {
      if (!isObject(item)) return refusal;
      const { filePattern = '', verbosity = 0 } = item;
      const number = level.read(verbosity);
      if (typeof filePattern !== 'string') return refusal;
      if (number instanceof Refusal) return new Refusal(`verbosity ${number.allowed}`);
      items.push({ filePattern, verbosity: number });
    }
    return items;
  },
  format: (items) => items.map(({ filePattern, verbosity }) => `${filePattern}=${verbosity}`).join(','),
  write: (items) => items.map(({ filePattern, verbosity }) => ({ filePattern, verbosity })),
};

export function isObject(data: unknown): data is Readonly<Record<string, unknown>> {
  return typeof data === 'object' && data !== null && !Array.isArray(data);
}
