/** The results as a table in Markdown, which also reads well on a terminal. */
import { findPipeline, type Results } from './results.js';

interface Row {
  readonly figure: string;
  readonly value: string;
  /** Measured in the same run. */
  readonly against: string;
  readonly ratio: number | undefined;
  readonly wanted: string;
  /** undefined: nothing was promised. */
  readonly met: boolean | undefined;
}

function time(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : ms >= 1 ? `${ms.toFixed(1)} ms` : `${ms.toFixed(3)} ms`;
}

function count(value: number): string {
  return value.toLocaleString('en');
}

function size(services: number, endpoints: number): string {
  return `${count(services)} × ${count(endpoints)}`;
}

function rowsOf(results: Results): Row[] {
  const rows: Row[] = [];
  const add = (
    figure: string,
    value: string,
    against = '',
    ratio?: number,
    wanted = '',
    met?: boolean,
  ): void => {
    rows.push({ figure, value, against, ratio, wanted, met });
  };

  for (const one of results.pipelines) {
    const ratio = one.coldMs / one.bareMs;
    const promised = one.services === 10_000 && one.endpoints === 10;
    add(
      `cold start after the lists, ${size(one.services, one.endpoints)} (decoding them)`,
      `${time(one.coldMs)} (${time(one.decodeMs)})`,
      `bare batch ${time(one.bareMs)}`,
      ratio,
      promised ? '≤ 1.0 s, ≤ 4 ×' : '',
      promised ? one.coldMs <= 1000 && ratio <= 4 : undefined,
    );
  }
  for (const one of results.pipelines) {
    if (one.services < 10_000) continue;
    add(
      `restart: the kernel's table read and compared, ${size(one.services, one.endpoints)}`,
      time(one.adoptMs),
      `cold start ${time(one.coldMs)}`,
      one.adoptMs / one.coldMs,
    );
  }
  const small = findPipeline(results, 100, 10);
  for (const one of results.pipelines) {
    if (one.endpoints !== 10) continue;
    const ratio = small === undefined || one === small ? undefined : one.changeP50 / small.changeP50;
    add(
      `one endpoint change at ${count(one.services)} services, p50 (p99)`,
      `${time(one.changeP50)} (${time(one.changeP99)})`,
      small === undefined || one === small ? '' : `at 100 services ${time(small.changeP50)}`,
      ratio,
      ratio === undefined ? 'p50 ≤ 1 ms' : 'p50 ≤ 1 ms, ≤ 1.5 ×',
      one.changeP50 <= 1 && (ratio ?? 1) <= 1.5,
    );
  }
  for (const one of results.programs) {
    const at = size(one.services, one.endpoints);
    const inside = findPipeline(results, one.services, one.endpoints);
    add(
      `the program: start to last acknowledgement, ${at}`,
      time(one.coldMs),
      inside === undefined ? '' : `pipeline alone ${time(inside.coldMs)}`,
      inside === undefined ? undefined : one.coldMs / inside.coldMs,
    );
    add(
      `the program: kill -9 and restart, ${at}`,
      `${time(one.restartMs)}, ${one.restartWrites} writes`,
      `its cold start ${time(one.coldMs)}`,
      one.restartMs / one.coldMs,
      'no writes',
      one.restartWrites === 0,
    );
    add(
      `the program: API write to kernel, ${at}, p50 (p99)`,
      `${time(one.changeP50)} (${time(one.changeP99)})`,
      inside === undefined ? '' : `pipeline alone ${time(inside.changeP50)}`,
      inside === undefined ? undefined : one.changeP50 / inside.changeP50,
    );
    const mib = (value: number): string => `${value.toFixed(0)} MiB`;
    const promised = one.services === 10_000 && one.endpoints === 10;
    const base = results.programs[0];
    const most = Math.max(one.rssStart, one.rssSettled, one.rssAfterChanges);
    add(
      `the program: resident memory, ${at}: started, settled, after changes`,
      `${mib(one.rssStart)}, ${mib(one.rssSettled)}, ${mib(one.rssAfterChanges)}`,
      base === undefined || base === one ? '' : `at ${count(base.services)} services ${mib(base.rssSettled)}`,
      base === undefined || base === one ? undefined : one.rssSettled / base.rssSettled,
      promised ? '≤ 200 MiB' : '',
      promised ? most <= 200 : undefined,
    );
    add(
      `the program: resident memory, ${at}: peak of the cold start, after a restart`,
      `${mib(one.rssPeak)}, ${mib(one.rssAfterRestart)}`,
    );
  }
  const first = results.programs[0];
  if (first !== undefined) {
    add(
      'the program: bare start (`--version`)',
      time(first.versionMs),
      '',
      undefined,
      '≤ 150 ms',
      first.versionMs <= 150,
    );
  }
  const { nft, verdictMap } = results;
  if (nft !== undefined) {
    add(
      `peer: \`nft -f\`, the same elements, ${size(nft.services, nft.endpoints)}`,
      time(nft.nftMs),
      `bare batch ${time(nft.bareMs)}`,
      nft.nftMs / nft.bareMs,
    );
    const ours = findPipeline(results, nft.chainServices, nft.endpoints);
    add(
      `peer: \`nft -f\`, a chain per service, ${size(nft.chainServices, nft.endpoints)}`,
      time(nft.chainNftMs),
      ours === undefined ? '' : `our cold start ${time(ours.coldMs)}`,
      ours === undefined ? undefined : nft.chainNftMs / ours.coldMs,
    );
    add(
      `peer: one endpoint change with a chain per service, ${size(nft.chainServices, nft.endpoints)}`,
      time(nft.chainChangeMs),
      ours === undefined ? '' : `our change ${time(ours.changeP50)}`,
      ours === undefined ? undefined : nft.chainChangeMs / ours.changeP50,
    );
  }
  add(
    `one element changed among ${count(verdictMap.elements)}: verdict map`,
    time(verdictMap.verdictMs),
    `map of numbers ${time(verdictMap.numberMs)}`,
    verdictMap.verdictMs / verdictMap.numberMs,
  );
  return rows;
}

export function table(results: Results): string {
  const head = ['figure', 'measured', 'against, in the same run', 'ratio', 'wanted', 'met'];
  const body = rowsOf(results).map(({ figure, value, against, ratio, wanted, met }) => [
    figure,
    value,
    against,
    ratio === undefined ? '' : `${ratio >= 20 ? ratio.toFixed(0) : ratio.toFixed(2)} ×`,
    wanted,
    met === undefined ? '' : met ? 'yes' : '**no**',
  ]);
  const rows = [head, head.map(() => '---'), ...body];
  const widths = head.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows
    .map((row) => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`)
    .join('\n');
}

export function unmet(results: Results): number {
  return rowsOf(results).filter(({ met }) => met === false).length;
}

export function machineLine({ machine, seconds, quick }: Results): string {
  return (
    `${machine.cores} cores (${machine.processor}), ${machine.memoryGiB} GiB, kernel ${machine.kernel}, ` +
    `Node ${machine.node.slice(1)}, load before the run ${machine.load.toFixed(1)}; it took ${seconds.toFixed(0)} s${quick ? ' (short form)' : ''}.`
  );
}
