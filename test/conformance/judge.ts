/** Holds what happened to a packet against what the case expects. */
import { addressKey, nameOf, sameAddress } from './addresses.js';
import type { ExpectedEndpoint, Outcome } from './notation.js';
import type { ProbeResult } from './protocol.js';
import { addressPart, portPart } from './protocol.js';
import { patiently } from '../patience.js';

/** How long silence must last to count as dropped, where that is what is expected. Milliseconds. */
const ordinarySilence = patiently(300, 5);
/**
 * The same for TCP over IPv6, and for SCTP. Here the ICMP error comes back while the connect() system call still holds the
 * socket, and the kernel puts it aside (LockDroppedIcmps): only the packet that is sent again after a second is refused.
 */
const silenceOfRetries = patiently(1400, 5);

export function silence(protocol: string, target: string): number {
  return protocol === 'SCTP' || (protocol === 'TCP' && target.includes(':'))
    ? silenceOfRetries
    : ordinarySilence;
}

export interface Observation {
  /** Source address; '' when alder's kernel chose it. */
  readonly source: string;
  readonly result: ProbeResult;
  readonly count: number;
}

export interface Circumstances {
  readonly target: string;
  readonly port: number;
  /** Where the target lives if nobody translates the packet. */
  readonly targetPlace: string;
  /** Backend port of the addressed service port; undefined when no service has this address. */
  readonly backendPort: number | undefined;
  readonly isAlder: (address: string) => boolean;
}

function sourceKind({ source, result }: Observation, isAlder: (address: string) => boolean): string {
  if (result.kind !== 'answered') return '';
  const saw = addressPart(result.saw);
  if (source !== '' && sameAddress(saw, source)) return 'keep';
  return isAlder(saw) ? 'masq' : `from ${saw}`;
}

/** `L1 masq x12, DROP x3`: what a reader of a failure wants to know. */
export function describe(observations: readonly Observation[], circumstances: Circumstances): string {
  const counts = new Map<string, number>();
  for (const observation of observations) {
    const text = describeOne(observation, circumstances);
    counts.set(text, (counts.get(text) ?? 0) + observation.count);
  }
  return (
    [...counts].map(([text, count]) => (count === 1 ? text : `${text} x${count}`)).join(', ') || 'nothing'
  );
}

function describeOne(observation: Observation, circumstances: Circumstances): string {
  const { result } = observation;
  switch (result.kind) {
    case 'refused':
      return 'REJECT';
    case 'silent':
      return 'DROP';
    case 'failed':
      return result.message;
    case 'answered': {
      if (result.place === 'elsewhere')
        return `PASS to elsewhere, ${sourceKind(observation, circumstances.isAlder)}`;
      const name = nameOf(addressPart(result.by));
      return `${name}:${portPart(result.by)} ${sourceKind(observation, circumstances.isAlder)}`;
    }
  }
}

function matches(
  observation: Observation,
  expected: ExpectedEndpoint,
  circumstances: Circumstances,
): boolean {
  const { result } = observation;
  if (result.kind !== 'answered' || result.place === 'elsewhere') return false;
  if (!sameAddress(addressPart(result.by), expected.address)) return false;
  const port = expected.port ?? circumstances.backendPort;
  if (port !== undefined && portPart(result.by) !== port) return false;
  // Of a process of alder it cannot be told whether its source was kept or became another address of alder.
  const kind = sourceKind(observation, circumstances.isAlder);
  if (expected.source === 'either') return kind === 'keep' || kind === 'masq';
  if (observation.source === '' || circumstances.isAlder(observation.source)) {
    return kind === 'masq' || kind === 'keep';
  }
  return kind === expected.source;
}

/** undefined: as expected. Otherwise why not. */
export function judge(
  outcome: Outcome,
  observations: readonly Observation[],
  circumstances: Circumstances,
  share: number | undefined,
): string | undefined {
  if (observations.length === 0) return 'no packet was sent';
  switch (outcome.kind) {
    case 'REJECT':
      return observations.every(({ result }) => result.kind === 'refused') ? undefined : 'not refused';
    case 'DROP':
      return observations.every(({ result }) => result.kind === 'silent') ? undefined : 'not dropped';
    case 'PASS':
      return judgePass(observations, circumstances);
    case 'endpoints':
      return judgeEndpoints(outcome, observations, circumstances, share);
    case 'compared':
      return undefined;
  }
}

function judgePass(observations: readonly Observation[], circumstances: Circumstances): string | undefined {
  const { target, port, targetPlace, isAlder } = circumstances;
  for (const { source, result } of observations) {
    if (result.kind !== 'answered') return 'the owner of the address did not get it';
    if (result.place !== targetPlace) return `it ended in ${result.place}, not in ${targetPlace}`;
    if (
      targetPlace !== 'elsewhere' &&
      (!sameAddress(addressPart(result.by), target) || portPart(result.by) !== port)
    ) {
      return 'it was translated';
    }
    const saw = addressPart(result.saw);
    if (source === '' ? !isAlder(saw) : !sameAddress(saw, source)) return 'its source was changed';
  }
  return undefined;
}

function judgeEndpoints(
  outcome: Extract<Outcome, { kind: 'endpoints' }>,
  observations: readonly Observation[],
  circumstances: Circumstances,
  share: number | undefined,
): string | undefined {
  const counts = new Map<ExpectedEndpoint, number>();
  let total = 0;
  for (const observation of observations) {
    const found = outcome.endpoints.find((expected) => matches(observation, expected, circumstances));
    if (found === undefined) return `unexpected: ${describeOne(observation, circumstances)}`;
    counts.set(found, (counts.get(found) ?? 0) + observation.count);
    total += observation.count;
  }
  if (outcome.quantity === 'one') {
    const perSource = new Map<string, Set<string>>();
    for (const { source, result } of observations) {
      if (result.kind !== 'answered') continue;
      const reached = perSource.get(source) ?? new Set<string>();
      reached.add(addressKey(addressPart(result.by)));
      perSource.set(source, reached);
    }
    return [...perSource.values()].every((reached) => reached.size === 1)
      ? undefined
      : 'one client reached more than one endpoint';
  }
  const unseen = outcome.endpoints.filter((expected) => !counts.has(expected));
  if (unseen.length > 0) return `never reached: ${unseen.map(({ name }) => name).join(', ')}`;
  if (share === undefined) return undefined;
  const even = 100 / outcome.endpoints.length;
  for (const [expected, count] of counts) {
    const percent = (100 * count) / total;
    if (Math.abs(percent - even) > share) {
      return `${expected.name} got ${percent.toFixed(1)} % of the connections, not ${even.toFixed(1)} ± ${share} %`;
    }
  }
  return undefined;
}
