/**
 * Brings what the model wants into the kernel: takes its changes and hands them to one loop per family (family-sync.ts). These
 * do not wait for each other: a tool that hangs, a table that is rejected or contested in one family holds up only that one.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Dataplane } from '../backends/backend.js';
import type { IPFamily, ModelChanges } from '../model/types.js';
import { FamilySync, type FamilySyncOptions } from './family-sync.js';

export interface SyncLoopOptions extends Omit<FamilySyncOptions, 'dataplane' | 'takeChanges'> {
  readonly dataplanes: readonly Dataplane[];
  /** Called whenever changes are taken from the model, with what it said beside the service ports. */
  readonly onChanges: (changes: ModelChanges) => void;
}

/** Services that the model evaluates in one turn of the event loop at the start: some 3 ms. */
const servicesPerTurn = 500;

export class SyncLoop {
  private readonly families: readonly FamilySync[];
  /** All that the model had at the start was taken. */
  private started = false;
  /** Takes what the model had at the start. */
  private starting: Promise<void> | undefined;
  private stopped = false;

  constructor(private readonly options: SyncLoopOptions) {
    this.families = options.dataplanes.map(
      (dataplane) =>
        new FamilySync({
          ...options,
          dataplane,
          takeChanges: () => this.takeChanges(),
        }),
    );
  }

  /** Something changed. */
  request(): void {
    for (const family of this.families) family.request();
  }

  /** Something was deferred outside a sync. */
  requestDeferred(): void {
    for (const family of this.families) family.requestDeferred();
  }

  /** The kernel no longer holds what it should: compare everything. */
  requestResync(family: IPFamily): void {
    this.of(family)?.requestResync();
  }

  /** Look whether the kernel holds what it should, although nothing speaks for damage. */
  requestCheck(family: IPFamily): void {
    this.of(family)?.requestCheck();
  }

  /** Ends after the syncs and the checks that are running, if any: then nobody uses the dataplanes. */
  async stop(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.families.map((family) => family.stop()));
  }

  private of(family: IPFamily): FamilySync | undefined {
    return this.families.find((candidate) => candidate.family === family);
  }

  /** Hands what the model has to say to all families; at the start, when all Services are new, in turns of the event loop. */
  private takeChanges(): Promise<void> | undefined {
    if (this.starting !== undefined) return this.starting;
    this.handOut();
    if (this.started) return undefined;
    if (this.options.model.hasChanges)
      return (this.starting = this.takeRest().finally(() => {
        this.starting = undefined;
      }));
    this.started = true;
    return undefined;
  }

  /** Of what there is at the start. */
  private async takeRest(): Promise<void> {
    while (this.options.model.hasChanges) {
      await nextTurn();
      if (this.isStopped()) return;
      this.handOut();
    }
    this.started = true;
  }

  /** It may be stopped while something else is waited for. */
  private isStopped(): boolean {
    return this.stopped;
  }

  private handOut(): void {
    const { model, log, onChanges } = this.options;
    let changes: ModelChanges;
    try {
      changes = model.takeChanges(this.started ? Infinity : servicesPerTurn);
    } catch (error) {
      // Some of them may be lost.
      for (const family of this.families) family.compareNext();
      throw error;
    }
    try {
      onChanges(changes);
    } catch (error) {
      log.error('Failed to apply changes other than service ports', error);
    }
    for (const family of this.families) family.take(changes);
  }
}
