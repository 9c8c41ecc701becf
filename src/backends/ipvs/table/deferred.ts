/**
 * Deletions that wait until no packet is under way any longer that may need what is deleted: nf_tables looks each set up as it
 * is at that moment, so a packet may have found the way to an element before a change, and look for it afterwards.
 */
import type { Element } from '../desired-state.js';

/** As long as a packet may take through the rules and IPVS. */
const packetMs = 100;
/** Of one deleteDeferred(). */
const mostAtOnce = 1_000;

export class DeferredDeletions {
  /** By elementId(), the oldest first. */
  private readonly elements = new Map<string, { readonly element: Element; readonly dueAt: number }>();
  /** Virtual servers by mark: when they are due, the oldest first. */
  private readonly marks = new Map<number, number>();

  /** performance.now() when the first is due; undefined: there are none. */
  get dueAt(): number | undefined {
    const [element] = this.elements.values();
    const [mark] = this.marks.values();
    if (element === undefined) return mark;
    return mark === undefined ? element.dueAt : Math.min(element.dueAt, mark);
  }

  add(element: Element, now: number): void {
    this.elements.set(elementId(element), { element, dueAt: now + packetMs });
  }

  /** It is wanted again. @returns the element as the kernel has it; undefined: it was not about to be deleted */
  take({ set, key }: Pick<Element, 'set' | 'key'>): Element | undefined {
    const id = elementId({ set, key });
    const found = this.elements.get(id);
    this.elements.delete(id);
    return found?.element;
  }

  addMark(mark: number, now: number): void {
    this.marks.set(mark, now + packetMs);
  }

  takeDueElements(now: number): Element[] {
    const due: Element[] = [];
    for (const [id, { element, dueAt }] of this.elements) {
      if (dueAt > now || due.length === mostAtOnce) break;
      due.push(element);
      this.elements.delete(id);
    }
    return due;
  }

  takeDueMarks(now: number): number[] {
    const due: number[] = [];
    for (const [mark, dueAt] of this.marks) {
      if (dueAt > now || due.length === mostAtOnce) break;
      due.push(mark);
      this.marks.delete(mark);
    }
    return due;
  }

  clear(): void {
    this.elements.clear();
    this.marks.clear();
  }
}

export function elementId({ set, key }: Pick<Element, 'set' | 'key'>): string {
  return `${set}\0${key}`;
}
