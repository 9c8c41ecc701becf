/** What a run of all cases yields, as written by `--json` and read by `--from`. */
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import type { DataPathResult } from './data-path.js';
import type { NftPeersResult } from './nft-peers.js';
import type { PipelineResult } from './pipeline.js';
import type { ProgramResult } from './program.js';
import type { VerdictMapResult } from './verdict-map.js';

export interface Machine {
  readonly cores: number;
  readonly processor: string;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  /** Processes that wanted a processor in the minute before the run: what other work disturbed it. */
  readonly load: number;
}

export interface Results {
  /** Of the file's shape. */
  readonly version: 4;
  readonly quick: boolean;
  readonly machine: Machine;
  /** Seconds that the run took. */
  readonly seconds: number;
  readonly pipelines: readonly PipelineResult[];
  readonly programs: readonly ProgramResult[];
  readonly dataPath: DataPathResult;
  /** undefined where nft is not installed. */
  readonly nft: NftPeersResult | undefined;
  readonly verdictMap: VerdictMapResult;
}

export function describeMachine(): Machine {
  return {
    cores: availableParallelism(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release().replace(/-.*$/, ''),
    node: process.version,
    load: loadavg()[0] ?? NaN,
  };
}

export function findPipeline(
  results: Results,
  services: number,
  endpoints: number,
): PipelineResult | undefined {
  return results.pipelines.find((one) => one.services === services && one.endpoints === endpoints);
}
