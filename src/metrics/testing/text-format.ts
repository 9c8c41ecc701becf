/**
 * A strict reader of the Prometheus text format (version 0.0.4), for tests: what it accepts, promtool accepts. Stricter
 * than a scraper in that everything about a metric stands together, HELP before TYPE before samples.
 */

export type MetricType = 'counter' | 'gauge' | 'histogram' | 'summary';

export interface Sample {
  /** Of the sample: with _bucket, _sum or _count for the parts of a histogram. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly samples: readonly Sample[];
}

const types: readonly string[] = ['counter', 'gauge', 'histogram', 'summary'];

/** @returns families by name, in their order @throws Error that names the line */
export function parseTextFormat(text: string): ReadonlyMap<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line does not end with a line feed');
  const families = new Map<string, Family>();
  let help: { name: string; text: string } | undefined;
  let current: { name: string; help: string; type: MetricType; samples: Sample[] } | undefined;
  for (const [index, line] of text.slice(0, -1).split('\n').entries()) {
    const fail = (reason: string): Error => new Error(`line ${index + 1}: ${reason}: ${line}`);
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (comment !== null) {
      const [, keyword, name = '', rest = ''] = comment;
      if (keyword === 'HELP') {
        if (families.has(name)) throw fail('a second HELP');
        help = { name, text: unescape(rest, fail) };
      } else {
        if (help?.name !== name) throw fail('TYPE without its HELP in front');
        if (!isType(rest)) throw fail('unknown type');
        current = { name, help: help.text, type: rest, samples: [] };
        families.set(name, current);
        help = undefined;
      }
      continue;
    }
    if (help !== undefined) throw fail('HELP without TYPE after it');
    const sample = parseSample(line, fail);
    if (current === undefined || !belongs(sample.name, current)) throw fail('a sample away from its TYPE');
    if (current.samples.some((other) => sameSeries(other, sample)))
      throw fail('a series for the second time');
    current.samples.push(sample);
  }
  for (const family of families.values()) {
    if (family.samples.length === 0) throw new Error(`${family.name} has no samples`);
    if (family.type === 'counter') checkCounter(family);
    if (family.type === 'histogram') checkHistogram(family);
  }
  return families;
}

/** What `promtool check metrics` would complain about, one line each. */
export function lint(families: Iterable<Family>): string[] {
  const complaints: string[] = [];
  for (const { name, help, type, samples } of families) {
    const bad = (reason: string): void => void complaints.push(`${name}: ${reason}`);
    if (help.trim() === '') bad('no help text');
    if (type === 'counter' && !name.endsWith('_total')) bad('a counter whose name does not end with _total');
    if (type !== 'counter' && name.endsWith('_total')) bad('not a counter, but its name ends with _total');
    if (type !== 'histogram' && /_bucket$/.test(name)) bad('not a histogram, but its name ends with _bucket');
    if (type !== 'histogram' && type !== 'summary' && /_(count|sum)$/.test(name))
      bad('neither histogram nor summary, but its name ends like a part of one');
    if (/[A-Z]/.test(name)) bad('camelCase');
    if (name.includes(':')) bad('colons are for recording rules');
    if (/_(milliseconds|ms|minutes|hours|kilobytes|megabytes|bits)(_|$)/.test(name)) bad('not a base unit');
    if (/_(counter|gauge|histogram|summary)(_|$)/.test(name)) bad('the type is part of the name');
    for (const label of new Set(samples.flatMap(({ labels }) => Object.keys(labels)))) {
      if (/[A-Z]/.test(label)) bad(`label ${label}: camelCase`);
      if (label === 'le' && type !== 'histogram') bad('label le, but not a histogram');
    }
  }
  return complaints;
}

function isType(text: string): text is MetricType {
  return types.includes(text);
}

function parseSample(line: string, fail: (reason: string) => Error): Sample {
  const head = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line)?.[0];
  if (head === undefined) throw fail('neither comment nor sample');
  let rest = line.slice(head.length);
  const labels: Record<string, string> = {};
  if (rest.startsWith('{')) {
    rest = rest.slice(1);
    let separator = '';
    while (!rest.startsWith('}')) {
      if (!rest.startsWith(separator)) throw fail('labels are not separated by a comma');
      const pair = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/.exec(rest.slice(separator.length));
      if (pair === null) throw fail('not a label');
      const [whole, name = '', value = ''] = pair;
      if (name in labels) throw fail(`label ${name} for the second time`);
      labels[name] = unescape(value, fail, '"');
      rest = rest.slice(separator.length + whole.length);
      separator = ',';
    }
    rest = rest.slice(1);
    if (separator === '') throw fail('empty braces');
  }
  const value = /^ (\+Inf|-Inf|NaN|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(rest)?.[1];
  if (value === undefined) throw fail('not a value');
  const number = value.endsWith('Inf') ? (value === '+Inf' ? Infinity : -Infinity) : Number(value);
  return { name: head, labels, value: number };
}

function unescape(text: string, fail: (reason: string) => Error, more = ''): string {
  return text.replaceAll(/\\(.?)/g, (_, character: string) => {
    if (character === '\\' || (character !== '' && more.includes(character))) return character;
    if (character === 'n') return '\n';
    throw fail(`\\${character} is not an escape`);
  });
}

function belongs(sample: string, { name, type }: { name: string; type: MetricType }): boolean {
  if (type !== 'histogram') return sample === name;
  return ['_bucket', '_sum', '_count'].some((suffix) => sample === name + suffix);
}

function seriesOf({ name, labels }: Sample): string {
  return JSON.stringify([name, Object.entries(labels).sort()]);
}

function sameSeries(a: Sample, b: Sample): boolean {
  return seriesOf(a) === seriesOf(b);
}

function checkCounter({ name, samples }: Family): void {
  for (const { value } of samples) if (!(value >= 0)) throw new Error(`${name}: a counter of ${value}`);
}

function checkHistogram({ name, samples }: Family): void {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const others = Object.entries(sample.labels).filter(([label]) => label !== 'le');
    const key = JSON.stringify(others.sort());
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const [key, group] of groups) {
    const fail = (reason: string): Error => new Error(`${name}${key}: ${reason}`);
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    if (count === undefined) throw fail('no _count');
    if (!group.some((sample) => sample.name === `${name}_sum`)) throw fail('no _sum');
    let bound = -Infinity;
    let before = 0;
    for (const { labels, value } of buckets) {
      const le = labels['le'] === '+Inf' ? Infinity : Number(labels['le']);
      if (!(le > bound)) throw fail(`bucket ${labels['le'] ?? 'without le'} is out of order`);
      if (!(value >= before)) throw fail(`bucket ${labels['le'] ?? ''} holds less than the one before`);
      bound = le;
      before = value;
    }
    if (bound !== Infinity) throw fail('no bucket +Inf');
    if (before !== count) throw fail('_count is not the bucket +Inf');
  }
}
