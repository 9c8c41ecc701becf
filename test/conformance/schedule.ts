/** Which tests run together: rows that share an address or a node port never do. */
import { addressKey } from './addresses.js';
import type { Step, Test } from './cases.js';
import { configurationKey } from './lab.js';

export interface Group {
  readonly tests: readonly Test[];
}

const serviceAddress =
  /\b(?:10\.17[78]|192\.0\.2|203\.0\.113|100\.64\.(?:77|88))\.[\d.]+|fd7[78]:[0-9a-f:]+|2001:db8:(?:b|e|77|88)::[0-9a-f]+/g;

/** Steps that touch what all rows share: the proxy, the Node, the host's own rules. */
const exclusiveVerbs: readonly (keyof Step)[] = [
  'proxy',
  'api',
  'node',
  'service-cidrs',
  'alder-rules',
  'alder-drops',
  'lock-tables',
  'obstruct',
  'alder-addresses',
  'event',
  'stray',
];

export function isAlone(test: Test): boolean {
  return (
    test.row.alone === true ||
    test.steps.some((step) => exclusiveVerbs.some((verb) => step[verb] !== undefined)) ||
    test.steps.some((step) => JSON.stringify([step.expect, step.better]).includes('arrives')) ||
    test.alderAddresses.some((address) => address.startsWith('100.64.'))
  );
}

/** What a test claims for itself while it runs. */
function claims(test: Test): ReadonlySet<string> {
  const text = JSON.stringify([[...test.services], test.steps, test.alderAddresses]);
  const keys = new Set<string>();
  for (const [address] of text.matchAll(serviceAddress)) keys.add(addressKey(address.replace(/:$/, '')));
  for (const [, port] of text.matchAll(/\b(?:np"?[: ]|hc"?:|\d\]?:)(3[0-2]\d\d\d)\b/g)) {
    keys.add(`${port ?? ''} ${test.family}`);
    keys.add(`${port ?? ''} any`);
  }
  return keys;
}

/** Tests with the same configuration of proxy and cluster, in the order of the files. */
export function groupByConfiguration(tests: readonly Test[]): readonly Group[] {
  const groups = new Map<string, Test[]>();
  for (const test of tests) {
    const key = configurationKey(test.proxy, test.cluster);
    groups.set(key, [...(groups.get(key) ?? []), test]);
  }
  return [...groups.values()].map((members) => ({ tests: members }));
}

/** Cuts a group into batches whose members do not get in each other's way. */
export function batches(tests: readonly Test[], largest = 48): readonly (readonly Test[])[] {
  const open: { tests: Test[]; claimed: Set<string> }[] = [];
  const alone: Test[][] = [];
  for (const test of tests) {
    if (isAlone(test)) {
      alone.push([test]);
      continue;
    }
    const wanted = claims(test);
    const batch = open.find(
      ({ tests: members, claimed }) =>
        members.length < largest && [...wanted].every((key) => !claimed.has(key)),
    );
    if (batch === undefined) open.push({ tests: [test], claimed: new Set(wanted) });
    else {
      batch.tests.push(test);
      for (const key of wanted) batch.claimed.add(key);
    }
  }
  return [...open.map((batch) => batch.tests), ...alone];
}
