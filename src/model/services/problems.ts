/** What is wrong with one object, as it is found out field by field. */
import { printable } from '../../sources/printable.js';
import type { ModelProblem } from '../types.js';

/** An object can be wrong in a hundred thousand places; nobody reads more than the first few. */
const maxProblems = 8;
const maxQuoted = 80;

export class Problems {
  /** The first ones. */
  readonly list: ModelProblem[] = [];
  /** How many more there are. */
  more = 0;

  /** @param message made only when it will be kept */
  add(field: string, message: () => string): void {
    if (this.list.length < maxProblems) this.list.push({ field, message: message() });
    else this.more++;
  }
}

/** What an object says, for a message about it. */
export function quoted(text: string): string {
  return `'${printable(text, maxQuoted)}'`;
}
