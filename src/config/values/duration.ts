/** Durations in Go's syntax, which flags and configuration files of Kubernetes use. Milliseconds inside, fractions allowed. */

/** Milliseconds of each unit, as it is spelt. */
const units: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1e3,
  m: 6e4,
  h: 3.6e6,
};

/** Go counts nanoseconds in 63 bits: about 292 years. */
const mostMs = 2 ** 63 / 1e6;

/** `300ms`, `5s`, `1m30s`, `-1.5h`, `0`. @returns milliseconds, or undefined when it is not a duration. */
export function parseDuration(text: string): number | undefined {
  const [, sign, amount = ''] = /^([+-]?)(.*)$/s.exec(text) ?? [];
  if (amount === '0') return 0;
  if (!/^((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$/.test(amount)) return undefined;
  let total = 0;
  for (const [, number, unit] of amount.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(number) * (units[unit ?? ''] ?? 0);
  }
  if (total >= mostMs) return undefined;
  return sign === '-' && total !== 0 ? -total : total;
}

/** As Go prints it: `0s`, `300ms`, `15m0s`, `24h0m0s`. */
export function formatDuration(ms: number): string {
  const nanoseconds = Math.round(Math.abs(ms) * 1e6);
  if (nanoseconds === 0) return '0s';
  const sign = ms < 0 ? '-' : '';
  if (nanoseconds < 1e3) return `${sign}${nanoseconds}ns`;
  if (nanoseconds < 1e6) return `${sign}${nanoseconds / 1e3}µs`;
  if (nanoseconds < 1e9) return `${sign}${nanoseconds / 1e6}ms`;
  const hours = Math.floor(nanoseconds / 3.6e12);
  const minutes = Math.floor((nanoseconds % 3.6e12) / 6e10);
  const seconds = (nanoseconds % 6e10) / 1e9;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}s`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}s` : `${sign}${seconds}s`;
}
