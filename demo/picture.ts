/** The live tally: one row per pod with its share of the last second, and one for requests that nobody answered. */
import { bar, type Palette } from './display.js';
import type { Sandbox } from './topology.js';
import type { Tally } from './traffic.js';

export interface Picture {
  readonly lines: readonly string[];
  /** The same in one line, for a pipe. */
  readonly plain: string;
}

export interface PodView extends Sandbox {
  alive: boolean;
}

const barWidth = 28;
/** The share that fills a bar: with two pods or more, none comes near it. */
const fullShare = 0.6;

export const count = (value: number): string => value.toLocaleString('en-US');
export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

/**
 * @param total since the beginning
 * @param recent over the last `recentMs` milliseconds
 */
export function draw(
  colour: Palette,
  pods: readonly PodView[],
  total: Tally,
  recent: Tally,
  recentMs: number,
): Picture {
  const asked = recent.answered + recent.failed;
  const shareOf = (part: number): number => (asked === 0 ? 0 : part / asked);
  const row = (head: string, share: number, all: number, paint: (text: string) => string): string =>
    `    ${head} ${paint(bar(share / fullShare, barWidth))} ${percent(share).padStart(7)} ${count(all).padStart(8)}`;

  const podColours = [colour.cyan, colour.magenta, colour.blue, colour.yellow];
  const rows = pods.map((pod, index) => {
    const paint = podColours[index % podColours.length] ?? colour.cyan;
    const head = `${pod.name.padEnd(10)} ${pod.ip.padEnd(13)}`;
    const share = shareOf(recent.answers.get(pod.name) ?? 0);
    return row(
      pod.alive ? `${colour.green('●')} ${head}` : `${colour.red('✖')} ${colour.dim(head)}`,
      share,
      total.answers.get(pod.name) ?? 0,
      paint,
    );
  });
  const failed = shareOf(recent.failed);
  const noAnswer = 'no answer'.padEnd(26);
  // Nothing asked is no outage: the client of a busy machine was not given the processor.
  const rate = asked === 0 ? '– requests/s' : `${count(Math.round((asked / recentMs) * 1000))} requests/s`;
  return {
    lines: [
      '',
      ...rows,
      row(failed > 0 ? colour.red(noAnswer) : colour.dim(noAnswer), failed, total.failed, colour.red),
      colour.dim(`    ${rate}, each a new connection (bars: last second, numbers: all)`),
    ],
    plain: `    ${[
      ...pods.map((pod) => `${pod.name} ${percent(shareOf(recent.answers.get(pod.name) ?? 0))}`),
      `no answer ${percent(failed)}`,
      rate,
    ].join(', ')}`,
  };
}
