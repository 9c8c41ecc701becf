/**
 * What the runner and its agents say to each other: one JSON object per line, requests on the agent's standard input,
 * answers on its standard output. Both ends are compiled from this file.
 */

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** One connection (TCP, SCTP) or one question (UDP) from this namespace. */
export interface Probe {
  readonly protocol: Protocol;
  /** '' lets the kernel choose. */
  readonly source: string;
  /** 0 lets the kernel choose. */
  readonly sourcePort: number;
  readonly target: string;
  readonly port: number;
  /** Silence for this long counts as a dropped packet. Milliseconds. */
  readonly timeout: number;
}

/**
 * What came of a probe.
 * answered: `by` and `saw` are 'ip port' as the server saw itself and its peer, `place` is the server's namespace.
 * refused: connection refused or ICMP port unreachable. silent: nothing within the timeout.
 */
export type ProbeResult =
  | { readonly kind: 'answered'; readonly place: string; readonly by: string; readonly saw: string }
  | { readonly kind: 'refused' }
  | { readonly kind: 'silent' }
  | { readonly kind: 'failed'; readonly message: string };

export interface ListenAddress {
  readonly protocol: Protocol;
  readonly address: string;
  readonly port: number;
}

/** Results of many probes: how often each outcome occurred, and in what order for each source. */
export interface Tally {
  readonly result: ProbeResult;
  readonly count: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface SteadyReport {
  readonly attempts: number;
  readonly tallies: readonly Tally[];
}

export type Request =
  | { readonly op: 'sysctl'; readonly values: Readonly<Record<string, string>> }
  | { readonly op: 'listen'; readonly sockets: readonly ListenAddress[] }
  | { readonly op: 'unlisten'; readonly sockets: readonly ListenAddress[] }
  /** All probes at the same time. */
  | { readonly op: 'probe'; readonly probes: readonly Probe[] }
  /** The same probe again and again, `concurrency` at a time, sources taken in turn. */
  | {
      readonly op: 'tally';
      readonly probe: Probe;
      readonly sources: readonly string[];
      readonly count: number;
      readonly concurrency: number;
    }
  /** Repeats a probe until `answeredBy` ('ip port') answers. */
  | { readonly op: 'until'; readonly probe: Probe; readonly answeredBy: string; readonly patience: number }
  | { readonly op: 'hold'; readonly id: string; readonly probe: Probe }
  | { readonly op: 'again'; readonly id: string; readonly timeout: number }
  | { readonly op: 'release'; readonly id: string }
  | { readonly op: 'steady'; readonly id: string; readonly probe: Probe; readonly interval: number }
  | { readonly op: 'steady-end'; readonly id: string }
  | {
      readonly op: 'http';
      readonly method: string;
      readonly source: string;
      readonly target: string;
      readonly port: number;
      readonly path: string;
      readonly timeout: number;
    }
  | { readonly op: 'echo'; readonly source: string; readonly target: string; readonly timeout: number }
  | { readonly op: 'sctp-init'; readonly source: string; readonly target: string; readonly port: number }
  | { readonly op: 'forget-connections' }
  /** A TCP segment outside the window of the held connection `id`, marked with DSCP 42. */
  | { readonly op: 'stray-segment'; readonly id: string };

export interface Replies {
  sysctl: null;
  listen: null;
  unlisten: null;
  probe: readonly ProbeResult[];
  tally: readonly Tally[];
  until: { readonly reached: boolean; readonly last: ProbeResult };
  hold: ProbeResult;
  again: ProbeResult;
  release: null;
  steady: null;
  'steady-end': SteadyReport;
  http: HttpAnswer | { readonly error: string };
  echo: 'answered' | 'refused' | 'silent';
  'sctp-init': null;
  'forget-connections': null;
  'stray-segment': null;
}

/** One line to an agent. */
export interface Call {
  readonly id: number;
  readonly request: Request;
}

/** One line from an agent. */
export type Answer =
  | { readonly id: number; readonly value: Replies[keyof Replies] }
  | { readonly id: number; readonly error: string };

export function resultKey(result: ProbeResult): string {
  return result.kind === 'answered'
    ? `${result.place} ${result.by} ${addressPart(result.saw)}`
    : result.kind === 'failed'
      ? `failed ${result.message}`
      : result.kind;
}

/** The address of an 'ip port' pair. */
export function addressPart(pair: string): string {
  return pair.split(' ')[0] ?? '';
}

export function portPart(pair: string): number {
  return Number(pair.split(' ')[1] ?? '0');
}
