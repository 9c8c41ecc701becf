import { guarded } from '../../../callbacks/guarded.js';
/** Looks at places that somebody changes often: the first at once, further ones after a pause, together. */

const pauseMs = 250;

export class Throttle {
  /** Those that were looked at just now; `next` is the last of the looks that have come since. */
  private readonly places = new Map<
    string,
    { readonly timer: NodeJS.Timeout; next: (() => void) | undefined }
  >();

  request(place: string, look: () => void): void {
    const waiting = this.places.get(place);
    if (waiting === undefined) this.run(place, look);
    else waiting.next = look;
  }

  close(): void {
    for (const { timer } of this.places.values()) clearTimeout(timer);
    this.places.clear();
  }

  private run(place: string, look: () => void): void {
    const timer = setTimeout(
      guarded('look at rules', () => {
        const next = this.places.get(place)?.next;
        this.places.delete(place);
        if (next !== undefined) this.run(place, next);
      }),
      pauseMs,
    );
    this.places.set(place, { timer, next: undefined });
    look();
  }
}
