/** The report before a move as a table. */
import { table } from './table.js';
import type { MovingRow, MovingTarget } from './moving.js';

const cellWidth = 42;

export function movingText(rows: readonly MovingRow[], { mode }: Pick<MovingTarget, 'mode'>): string {
  const columns = [
    { title: 'TOPIC' },
    { title: 'NOW, IN MODE IPVS' },
    { title: `IN MODE ${mode.toUpperCase()}` },
    { title: 'WHAT TO DO' },
  ];
  const lines = rows.flatMap(({ topic, now, then, advice }) => {
    const cells = [[topic], ...[now, then, advice].map(wrap)];
    const height = Math.max(...cells.map((cell) => cell.length));
    return Array.from({ length: height }, (_, at) => cells.map((cell) => cell[at] ?? ''));
  });
  return table(columns, lines);
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > cellWidth) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
