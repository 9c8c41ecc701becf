/** The results as a picture: bars, readable on a light and on a dark background. */
import { findPipeline, type Results } from './results.js';

interface Bar {
  readonly label: string;
  /** Milliseconds. */
  readonly ms: number;
  readonly style: 'ours' | 'peer';
}

interface Panel {
  readonly title: string;
  readonly bars: readonly Bar[];
}

const width = 760;
const left = 250;
const right = 90;
const barHeight = 16;
const barStep = 22;

function panelsOf(results: Results): Panel[] {
  const cold: Bar[] = results.pipelines.flatMap((one) => {
    const size = `${one.services.toLocaleString('en')} × ${one.endpoints}`;
    return [
      { label: `${size}: bare netlink batch`, ms: one.bareMs, style: 'peer' as const },
      { label: `${size}: kube-proxy`, ms: one.coldMs, style: 'ours' as const },
    ];
  });
  const panels: Panel[] = [
    { title: 'Cold start: the lists read to the last acknowledgement of the kernel', bars: cold },
    {
      title: "Restart: the kernel's table read and compared, nothing written",
      bars: results.pipelines
        .filter(({ services }) => services >= 10_000)
        .map((one) => ({
          label: `${one.services.toLocaleString('en')} × ${one.endpoints}`,
          ms: one.resyncMs,
          style: 'ours' as const,
        })),
    },
    {
      title: 'One endpoint change: bytes of the event to the acknowledgement, p50',
      bars: results.pipelines
        .filter(({ endpoints }) => endpoints === 10)
        .map((one) => ({
          label: `${one.services.toLocaleString('en')} services`,
          ms: one.changeP50,
          style: 'ours' as const,
        })),
    },
  ];
  panels.push({
    title: "From the API server's write to a packet answered by the new endpoint, p50",
    bars: results.programs.map((one) => ({
      label: `${one.services.toLocaleString('en')} services`,
      ms: one.answerP50,
      style: 'ours' as const,
    })),
  });
  panels.push({
    title: "TCP connect: the pod's own address, and through a cluster IP",
    bars: results.dataPath.sizes.flatMap((one) => [
      {
        label: `${one.services.toLocaleString('en')} services: direct`,
        ms: one.direct / 1000,
        style: 'peer' as const,
      },
      {
        label: `${one.services.toLocaleString('en')} services: cluster IP`,
        ms: one.clusterIP / 1000,
        style: 'ours' as const,
      },
    ]),
  });
  const { nft } = results;
  const ours = nft === undefined ? undefined : findPipeline(results, nft.chainServices, nft.endpoints);
  if (nft !== undefined && ours !== undefined) {
    panels.push({
      title: `A chain per service, ${nft.chainServices.toLocaleString('en')} × ${nft.endpoints}, through nft -f`,
      bars: [
        { label: 'cold start: chain per service', ms: nft.chainNftMs, style: 'peer' },
        { label: 'cold start: kube-proxy', ms: ours.coldMs, style: 'ours' },
        { label: 'one change: chain per service', ms: nft.chainChangeMs, style: 'peer' },
        { label: 'one change: kube-proxy', ms: ours.changeP50, style: 'ours' },
      ],
    });
  }
  return panels;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function time(ms: number): string {
  return ms >= 1000
    ? `${(ms / 1000).toFixed(2)} s`
    : ms >= 10
      ? `${ms.toFixed(0)} ms`
      : ms >= 0.1
        ? `${ms.toFixed(2)} ms`
        : `${(ms * 1000).toFixed(1)} µs`;
}

/** An SVG image; all lengths of a panel are on one linear scale. */
export function plot(results: Results): string {
  const parts: string[] = [];
  let y = 8;
  for (const { title, bars } of panelsOf(results)) {
    y += 24;
    parts.push(`<text class="title" x="12" y="${y}">${escape(title)}</text>`);
    y += 12;
    const longest = Math.max(...bars.map(({ ms }) => ms));
    for (const { label, ms, style } of bars) {
      const length = Math.max(1, (ms / longest) * (width - left - right));
      const base = y + barHeight - 4;
      parts.push(
        `<text class="label" x="${left - 8}" y="${base}">${escape(label)}</text>`,
        `<rect class="${style}" x="${left}" y="${y}" width="${length.toFixed(1)}" height="${barHeight}" rx="2"/>`,
        `<text x="${(left + length + 6).toFixed(1)}" y="${base}">${time(ms)}</text>`,
      );
      y += barStep;
    }
  }
  const height = y + 10;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Benchmark results">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.label { text-anchor: end; }
.ours { fill: #1f6feb; }
.peer { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.ours { fill: #58a6ff; }
.peer { fill: #6e7681; }
}
</style>
${parts.join('\n')}
</svg>
`;
}
