/** The results as a table in Markdown, which also reads well on a terminal. */
import type { DataPathResult } from './data-path.js';
import type { PipelineResult } from './pipeline.js';
import type { ProgramResult } from './program.js';
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

/** Adds a row. */
type Add = (
  figure: string,
  value: string,
  against?: string,
  ratio?: number,
  wanted?: string,
  met?: boolean,
) => void;

function rowsOf(results: Results): Row[] {
  const rows: Row[] = [];
  const add: Add = (figure, value, against = '', ratio, wanted = '', met) => {
    rows.push({ figure, value, against, ratio, wanted, met });
  };
  addColdStarts(results, add);
  addSingleChanges(results, add);
  for (const one of results.programs) addProgram(results, one, add);
  addMemory(results, add);
  const first = results.programs[0];
  if (first !== undefined) {
    const met = first.versionMs <= 150;
    add('bare start (`--version`)', time(first.versionMs), '', undefined, '≤ 150 ms', met);
  }
  addDataPath(results.dataPath, add);
  addPeers(results, add);
  return rows;
}

/** What is wanted of a cold start: its ratio to the bare batch, and milliseconds where a limit was promised. */
function coldLimits({ services, endpoints }: PipelineResult): { ratio: number; ms: number } | undefined {
  if (services === 10_000 && endpoints === 10) return { ratio: 3, ms: 1000 };
  if (services === 50_000 && endpoints === 10) return { ratio: 3, ms: 3000 };
  return services * endpoints > 40_000 ? { ratio: 3, ms: Infinity } : undefined;
}

function addColdStarts(results: Results, add: Add): void {
  for (const one of results.pipelines) {
    const ratio = one.coldMs / one.bareMs;
    const limits = coldLimits(one);
    const inTime = limits === undefined || limits.ms === Infinity ? '' : `≤ ${time(limits.ms)}, `;
    add(
      `cold start after the lists, ${size(one.services, one.endpoints)} (reading them)`,
      `${time(one.coldMs)} (${time(one.readMs)})`,
      `bare batch ${time(one.bareMs)}`,
      ratio,
      limits === undefined ? '' : `${inTime}≤ ${limits.ratio} ×`,
      limits === undefined ? undefined : one.coldMs <= limits.ms && ratio <= limits.ratio,
    );
  }
  for (const one of results.pipelines) {
    if (one.services < 10_000) continue;
    add(
      `its longest transaction, ${size(one.services, one.endpoints)}`,
      time(one.longestMs),
      `all ${count(one.transactions)} of them ${time(one.coldKernelMs)}`,
      one.longestMs / one.coldKernelMs,
      '≤ 50 ms',
      one.longestMs <= 50,
    );
  }
  for (const one of results.pipelines) {
    if (one.services < 10_000) continue;
    const promised = one.services === 50_000;
    add(
      `restart: the kernel's table read and compared, ${size(one.services, one.endpoints)}`,
      time(one.resyncMs),
      `cold start ${time(one.coldMs)}`,
      one.resyncMs / one.coldMs,
      promised ? '≤ 3 s' : '',
      promised ? one.resyncMs <= 3000 : undefined,
    );
  }
}

function addSingleChanges(results: Results, add: Add): void {
  const small = findPipeline(results, 100, 10);
  for (const one of results.pipelines) {
    if (one.endpoints !== 10) continue;
    const ratio = small === undefined || one === small ? undefined : one.changeP50 / small.changeP50;
    add(
      `one endpoint change at ${count(one.services)} services, p50 (p99)`,
      `${time(one.changeP50)} (${time(one.changeP99)})`,
      ratio === undefined || small === undefined ? '' : `at 100 services ${time(small.changeP50)}`,
      ratio,
      `p50 ≤ 0.5 ms, p99 ≤ 5 ms${ratio === undefined ? '' : ', ≤ 1.3 ×'}`,
      one.changeP50 <= 0.5 && one.changeP99 <= 5 && (ratio ?? 1) <= 1.3,
    );
  }
}

function addProgram(results: Results, one: ProgramResult, add: Add): void {
  const at = size(one.services, one.endpoints);
  const inside = findPipeline(results, one.services, one.endpoints);
  const floor = inside === undefined ? undefined : one.readMs + inside.bareMs;
  add(
    `the program: start to last acknowledgement, ${at}`,
    time(one.coldMs),
    inside === undefined
      ? ''
      : `a process that reads the lists ${time(one.readMs)}, bare batch ${time(inside.bareMs)}`,
    floor === undefined ? undefined : one.coldMs / floor,
    floor === undefined || one.services < 10_000 ? '' : '≤ 1.3 ×',
    floor === undefined || one.services < 10_000 ? undefined : one.coldMs / floor <= 1.3,
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
  const small = results.programs[0];
  add(
    `the program: API write to an answered packet, ${at}, p50 (p99)`,
    `${time(one.answerP50)} (${time(one.answerP99)})`,
    small === undefined || small === one ? '' : `at 100 services ${time(small.answerP50)}`,
    small === undefined || small === one ? undefined : one.answerP50 / small.answerP50,
    'p50 ≤ 10 ms',
    one.answerP50 <= 10,
  );
  const [slow] = one.churn;
  for (const churn of one.churn) {
    const promised = churn.rate === 100;
    add(
      `the program: ${count(churn.rate)} changes/s for ${churn.seconds.toFixed(0)} s, ${at}: worst lag (p50)`,
      `${time(churn.lagMax)} (${time(churn.lagP50)})`,
      `${count(Math.round(churn.achieved))} changes/s managed; behind at the end ${time(churn.lagAfter)}`,
      undefined,
      promised ? '≤ 20 ms' : 'behind ≤ 100 ms',
      promised ? churn.lagMax <= 20 : churn.lagAfter <= 100,
    );
    add(
      `the program: ${count(churn.rate)} changes/s, ${at}: processor`,
      `${(churn.processor * 100).toFixed(1)} % of a core`,
      slow === undefined || slow === churn
        ? ''
        : `${count(slow.rate)} changes/s ${(slow.processor * 100).toFixed(1)} %`,
      slow === undefined || slow === churn ? undefined : churn.processor / slow.processor,
      promised ? '≤ 5 %' : '≤ 3 ×',
      promised ? churn.processor <= 0.05 : slow === undefined || churn.processor <= 3 * slow.processor,
    );
  }
  if (one.repair === undefined) return;
  const { elementDeleted, tableDeleted, rulesetFlushed } = one.repair;
  const cold = `its cold start ${time(one.coldMs)}`;
  const row = (what: string, ms: number, limit: number): void => {
    add(
      `the program: ${what}, ${at}: until packets are answered`,
      time(ms),
      cold,
      ms / one.coldMs,
      `≤ ${time(limit)}`,
      ms <= limit,
    );
  };
  row('one element deleted by others', elementDeleted, 50);
  row('table deleted', tableDeleted, 1000);
  if (rulesetFlushed !== undefined) row('`nft flush ruleset`', rulesetFlushed, 1000);
}

const memoryLimits: Readonly<Record<string, number>> = {
  '10000 × 10': 150,
  '50000 × 10': 450,
  '44125 × 1': 180,
};

function addMemory(results: Results, add: Add): void {
  const mib = (value: number): string => `${value.toFixed(0)} MiB`;
  const base = results.programs[0];
  for (const one of results.programs) {
    const at = size(one.services, one.endpoints);
    const limit = memoryLimits[`${one.services} × ${one.endpoints}`];
    const most = Math.max(one.rssStart, one.rssSettled, one.rssAfterChanges, one.rssAfterRestart);
    const small = base === undefined || base === one ? undefined : base;
    add(
      `the program: resident memory, ${at}: started, settled, after a restart`,
      `${mib(one.rssStart)}, ${mib(one.rssSettled)}, ${mib(one.rssAfterRestart)}`,
      small === undefined ? '' : `at 100 services ${mib(small.rssSettled)}`,
      small === undefined ? undefined : one.rssSettled / small.rssSettled,
      limit === undefined ? '' : `≤ ${limit} MiB`,
      limit === undefined ? undefined : most <= limit,
    );
    const grown = one.rssAfterChanges / one.rssSettled;
    add(
      `the program: resident memory, ${at}: after the changes; most ever at the start`,
      `${mib(one.rssAfterChanges)}; ${mib(one.rssPeak)}`,
      `settled ${mib(one.rssSettled)}`,
      grown,
      limit === undefined ? '' : '≤ 1.1 ×',
      limit === undefined ? undefined : grown <= 1.1,
    );
  }
}

const micro = (value: number): string => `${value.toFixed(1)} µs`;

function addDataPath({ sizes, chains }: DataPathResult, add: Add): void {
  const [smallest] = sizes;
  for (const one of sizes) {
    const through = one.clusterIP / one.direct;
    add(
      `TCP connect through a cluster IP, ${count(one.services)} services`,
      micro(one.clusterIP),
      `the pod's own address ${micro(one.direct)}`,
      through,
      '≤ 1.10 ×',
      through <= 1.1,
    );
  }
  for (const { services, perSecond } of sizes) {
    add(
      `new TCP connections per second through a cluster IP, one client, ${count(services)} services`,
      count(Math.round(perSecond.clusterIP)),
      `to the pod's own address ${count(Math.round(perSecond.direct))}`,
      perSecond.clusterIP / perSecond.direct,
    );
  }
  const peers = chains ?? [];
  for (const kind of ['clusterIP', 'loadBalancerIP', 'nodePort'] as const) {
    const name = { clusterIP: 'cluster IP', loadBalancerIP: 'load balancer address', nodePort: 'node port' }[
      kind
    ];
    for (const one of sizes) {
      if (smallest === undefined || one === smallest) continue;
      // Both against the direct way of the same moment: the machine's own drift is not ours.
      const flat = one[kind] / one.direct / (smallest[kind] / smallest.direct);
      add(
        `TCP connect through a ${name}: ${count(one.services)} services against ${count(smallest.services)}`,
        micro(one[kind]),
        micro(smallest[kind]),
        flat,
        '≤ 1.05 ×',
        flat <= 1.05,
      );
    }
    const peer = peers.at(-1);
    const same = sizes.find(({ services }) => services === peer?.services);
    if (peer === undefined || same === undefined) continue;
    const ratio = same[kind] / same.direct / (peer[kind] / peer.direct);
    add(
      `TCP connect through a ${name}: against a chain per service, ${count(peer.services)} services`,
      micro(same[kind]),
      `${micro(peer[kind])}, direct ${micro(peer.direct)}`,
      ratio,
      'not slower',
      // As far as medians can tell.
      ratio <= 1.02,
    );
  }
}

function addPeers(results: Results, add: Add): void {
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
