/**
 * Objects with which something is wrong, from wherever that is found out (decoding, model, kernel), and how their owners
 * hear of it: an event on the object, a metric, a log line. Each once, and again only when something else is wrong.
 */
import type { ClusterEvent } from '../sources/kube/events.js';
import { longestName, printable } from '../sources/printable.js';
import type { Logger } from '../log/logger.js';
import type { InvalidReason } from '../metrics/own.js';
import type { Metrics } from '../metrics/metrics.js';

/** Objects that the metric shows by name: whoever makes more of them must not make the scrape grow without end. */
const maxNamed = 100;
const maxDetail = 300;

/** The object that something is wrong with. */
export interface InvalidObject {
  readonly kind: string;
  /** '' for objects without a namespace. */
  readonly namespace: string;
  readonly name: string;
  /** '' when unknown. */
  readonly uid: string;
}

export interface InvalidObjectsOptions {
  readonly nodeName: string;
  readonly metrics: Pick<Metrics, 'invalidObjects' | 'invalidObject'>;
  readonly log: Logger;
  readonly record: (event: ClusterEvent) => void;
}

interface Wording {
  /** Of the event. */
  readonly reason: string;
  /** What it means for the object. */
  readonly note: string;
  /** undefined: who found out has logged it. */
  readonly log: string | undefined;
}

const wordings: Readonly<Record<InvalidReason, Wording>> = {
  unreadable: {
    reason: 'ObjectUnreadable',
    note: 'can not be read, its last good state stays in force',
    log: undefined,
  },
  fields_left_out: {
    reason: 'FieldsLeftOut',
    note: 'has fields that are left out, the rest is served',
    log: 'Fields of an object are left out, the rest is served',
  },
  cut_short: {
    reason: 'TooLarge',
    note: 'asks for more than one object may have, the rest is left out',
    log: 'An object asks for more than one may have; the rest is left out',
  },
  address_taken: {
    reason: 'AddressTaken',
    note: 'has addresses that another service port serves',
    log: 'An address is claimed by several service ports',
  },
  kernel_refused: {
    reason: 'KernelRefused',
    note: 'has ports that the kernel refuses; they are tried again',
    log: undefined,
  },
};

interface Known {
  /** What was told. */
  readonly reported: string;
  /** The metric shows its name. */
  readonly named: boolean;
}

export class InvalidObjects {
  private readonly known: Readonly<Record<InvalidReason, Map<string, Known>>> = {
    unreadable: new Map(),
    fields_left_out: new Map(),
    cut_short: new Map(),
    address_taken: new Map(),
    kernel_refused: new Map(),
  };
  private named = 0;

  constructor(private readonly options: InvalidObjectsOptions) {
    const { invalidObjects, invalidObject } = options.metrics;
    invalidObject.reset();
    for (const reason of Object.keys(wordings)) invalidObjects.set({ reason }, 0);
  }

  /**
   * What is wrong with an object for this reason now.
   * @param details the first things; none: it is in order
   * @param more how many there are beside those
   */
  set(reason: InvalidReason, object: InvalidObject, details: readonly string[], more = 0): void {
    const known = this.known[reason];
    const id = `${object.kind} ${object.namespace}/${object.name}`;
    const before = known.get(id);
    if (details.length === 0) {
      if (before !== undefined) this.forget(reason, object, id, before);
      return;
    }
    const texts = details.map((text) => printable(text, maxDetail));
    if (more > 0) texts.push(`and ${more} more`);
    const reported = texts.join('; ');
    if (before?.reported === reported) return;
    const named = before?.named ?? this.named < maxNamed;
    known.set(id, { reported, named });
    if (before === undefined) {
      const { invalidObjects, invalidObject } = this.options.metrics;
      invalidObjects.set({ reason }, known.size);
      if (named) {
        this.named++;
        invalidObject.set(labelsOf(reason, object), 1);
      }
    }
    this.report(reason, object, texts, reported);
  }

  private forget(reason: InvalidReason, object: InvalidObject, id: string, before: Known): void {
    const { metrics, log } = this.options;
    const known = this.known[reason];
    known.delete(id);
    metrics.invalidObjects.set({ reason }, known.size);
    if (before.named) {
      this.named--;
      metrics.invalidObject.remove(labelsOf(reason, object));
    }
    log.debug(2, 'Object is valid again', { object: printed(object), was: reason });
  }

  private report(
    reason: InvalidReason,
    object: InvalidObject,
    texts: readonly string[],
    reported: string,
  ): void {
    const { nodeName, log, record } = this.options;
    const wording = wordings[reason];
    if (wording.log !== undefined) log.warn(wording.log, { object: printed(object), problems: texts });
    const { kind, namespace, name, uid } = object;
    record({
      type: 'Warning',
      reason: wording.reason,
      action: 'ProgramRules',
      regarding: { apiVersion: apiVersionOf(kind), kind, namespace, name, uid },
      note: `${kind} ${wording.note} (node ${nodeName}): ${reported}`,
    });
  }
}

function printed({ kind, namespace, name }: InvalidObject): string {
  const path = namespace === '' ? name : `${namespace}/${name}`;
  return `${kind} ${printable(path, 2 * longestName)}`;
}

function labelsOf(
  reason: InvalidReason,
  { kind, namespace, name }: InvalidObject,
): Record<'kind' | 'namespace' | 'name' | 'reason', string> {
  return {
    kind,
    namespace: printable(namespace, longestName),
    name: printable(name, longestName),
    reason,
  };
}

function apiVersionOf(kind: string): string {
  if (kind === 'EndpointSlice') return 'discovery.k8s.io/v1';
  return kind === 'ServiceCIDR' ? 'networking.k8s.io/v1' : 'v1';
}
