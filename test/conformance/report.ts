/** What a run tells: one line per failure, a table per section, and the closing line. */
import type { Column, Row } from './cases.js';
import { needsApi } from './cases.js';
import type { Result } from './runner.js';

interface SectionCount {
  readonly title: string;
  rows: number;
  tests: number;
  passed: number;
  failed: number;
  exempt: number;
  /** Rows of another mode, or that need another source of objects. */
  notHere: number;
}

/** `A,B,17,30-40`; '' is everything. */
export function selects(list: string, section: string, row: number): boolean {
  if (list === '') return true;
  return list.split(',').some((item) => {
    const range = /^(\d+)(?:-(\d+))?$/.exec(item);
    if (range === null) return item === section;
    return row >= Number(range[1]) && row <= Number(range[2] ?? range[1]);
  });
}

export class Report {
  private readonly column: Column;
  private readonly sections = new Map<string, SectionCount>();
  private readonly results: Result[] = [];
  private readonly exempt: { row: number; reason: string }[] = [];

  constructor(column: Column) {
    this.column = column;
  }

  expectRow(letter: string, title: string, row: Row, source: 'api' | 'manifests'): void {
    const section = this.sections.get(letter) ?? {
      title,
      rows: 0,
      tests: 0,
      passed: 0,
      failed: 0,
      exempt: 0,
      notHere: 0,
    };
    section.rows++;
    if (row.modes !== undefined && !row.modes.includes(this.column)) section.notHere++;
    else if (row.exempt !== undefined) {
      section.exempt++;
      this.exempt.push({ row: row.row, reason: row.exempt });
    } else if (source === 'manifests' && needsApi(row)) section.notHere++;
    this.sections.set(letter, section);
  }

  add(result: Result): void {
    this.results.push(result);
    const section = this.sections.get(result.test.section)!;
    section.tests++;
    if (result.problem === undefined) {
      section.passed++;
      for (const note of result.notes) console.log(`noted ${result.test.section} ${result.test.id}: ${note}`);
      return;
    }
    section.failed++;
    const { id, row } = result.test;
    const given = row.given === undefined ? '' : `; given ${JSON.stringify(row.given)}`;
    console.log(`FAILED ${result.test.section} ${id} (${row.title}${given}): ${result.problem}`);
  }

  get passed(): number {
    return this.results.filter(({ problem }) => problem === undefined).length;
  }

  get failed(): number {
    return this.results.length - this.passed;
  }

  print(seconds: number): void {
    console.log('');
    console.log('section                                rows  tests  passed  failed  exempt    not here');
    for (const [letter, section] of [...this.sections].sort(([a], [b]) => a.localeCompare(b))) {
      const cells = [
        section.rows,
        section.tests,
        section.passed,
        section.failed,
        section.exempt,
        section.notHere,
      ];
      const widths = [6, 7, 8, 8, 8, 12];
      const numbers = cells.map((cell, index) => String(cell).padStart(widths[index] ?? 8)).join('');
      console.log(`${letter} ${section.title}`.padEnd(37) + numbers);
    }
    for (const { row, reason } of this.exempt) console.log(`exempt ${row}: ${reason}`);
    console.log(`${seconds.toFixed(1)} s`);
  }

  toJson(): unknown {
    return {
      column: this.column,
      passed: this.passed,
      failed: this.failed,
      exempt: this.exempt,
      results: this.results.map(({ test, problem }) => ({
        section: test.section,
        row: test.row.row,
        title: test.row.title,
        family: test.family,
        protocol: test.transport,
        ...(problem === undefined ? { passed: true } : { passed: false, problem }),
      })),
    };
  }
}
