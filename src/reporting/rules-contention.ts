/**
 * Two programs that undo each other's work: another one keeps changing our rules, and we keep putting them back, more and more
 * slowly. That is told once, to whoever can end it: as an event on the Node, a metric and an error in the log.
 */
import { guarded } from '../callbacks/guarded.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import type { Logger } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';

/** A repair that is put off for so long has been undone half a dozen times in a row. */
const contentionPauseMs = 500;
/** Nothing for so long, and for twice the last pause: it is over. */
const quietMs = 60_000;

export interface RulesContentionOptions {
  readonly nodeName: string;
  /** Of the Node object; '' when unknown. */
  readonly nodeUid: string;
  readonly metrics: Pick<Metrics, 'rulesContested'>;
  readonly log: Logger;
  readonly record: (event: ClusterEvent) => void;
  /** For tests. */
  readonly quietMs?: number;
}

export class RulesContention {
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly options: RulesContentionOptions) {
    options.metrics.rulesContested.set(0);
  }

  /**
   * Another program changed our rules, and their repair is put off.
   * @param by its name
   * @param pauseMs for so long
   */
  backOff(by: string, pauseMs: number): void {
    const isContention = this.timer !== undefined;
    if (!isContention && pauseMs < contentionPauseMs) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(
      guarded('end a contention', () => {
        this.end();
      }),
      (this.options.quietMs ?? quietMs) + 2 * pauseMs,
    ).unref();
    if (!isContention) this.begin(by);
  }

  close(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private begin(by: string): void {
    const { nodeName, nodeUid, metrics, log, record } = this.options;
    metrics.rulesContested.set(1);
    log.error('Rules contested by another program, backing off repairs', undefined, {
      by,
    });
    record({
      type: 'Warning',
      reason: 'RulesContested',
      action: 'ProgramRules',
      regarding: { apiVersion: 'v1', kind: 'Node', namespace: '', name: nodeName, uid: nodeUid },
      note: `${by} keeps changing the rules of kube-proxy on node ${nodeName}; they are put back after pauses of up to a minute, in which Services may not work: find out why it does that, and end one of the two`,
    });
  }

  private end(): void {
    this.timer = undefined;
    this.options.metrics.rulesContested.set(0);
    this.options.log.info('Rules no longer contested');
  }
}
