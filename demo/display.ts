/**
 * The stage: lines that stay, and below them a picture that is redrawn in place. Where standard output is no terminal
 * (a pipe, CI) the picture becomes a plain line now and then. Colours only on a terminal, and never with NO_COLOR
 * (https://no-color.org).
 */

export interface Stage {
  readonly isTTY: boolean;
  readonly columns: number;
  write(text: string): void;
}

type Paint = (text: string) => string;

export interface Palette {
  readonly bold: Paint;
  readonly dim: Paint;
  readonly red: Paint;
  readonly green: Paint;
  readonly yellow: Paint;
  readonly blue: Paint;
  readonly cyan: Paint;
  readonly magenta: Paint;
}

// A sequence of the "select graphic rendition" kind (ECMA-48, 8.3.117), the only kind that we put into lines.
// eslint-disable-next-line no-control-regex -- it is about control characters
const colourSequence = /\x1b\[[0-9;]*m/y;

function palette(enabled: boolean): Palette {
  const paint =
    (on: number, off: number): Paint =>
    (text) =>
      enabled ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    bold: paint(1, 22),
    dim: paint(2, 22),
    red: paint(31, 39),
    green: paint(32, 39),
    yellow: paint(33, 39),
    blue: paint(34, 39),
    cyan: paint(36, 39),
    magenta: paint(35, 39),
  };
}

/** Cuts a line to a width in columns. Colour sequences take no room and are all kept, so that no colour runs on. */
export function crop(line: string, width: number): string {
  let result = '';
  let used = 0;
  for (let at = 0; at < line.length;) {
    colourSequence.lastIndex = at;
    const sequence = colourSequence.exec(line)?.[0];
    if (sequence !== undefined) {
      result += sequence;
      at += sequence.length;
      continue;
    }
    if (used < width) result += line.charAt(at);
    used++;
    at++;
  }
  return result;
}

/** A bar with a resolution of an eighth of a column, padded to `width`. */
export function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8);
  const partial = ' ▏▎▍▌▋▊▉'.charAt(eighths % 8);
  return ('█'.repeat(Math.floor(eighths / 8)) + partial).slice(0, width).padEnd(width);
}

const plainLineEveryMs = 1000;

export class Display {
  readonly colour: Palette;
  private picture: readonly string[] = [];
  private nextPlainLine = 0;

  constructor(
    private readonly stage: Stage,
    env: Readonly<Record<string, string | undefined>> = process.env,
    private readonly now: () => number = Date.now,
  ) {
    this.colour = palette(stage.isTTY && (env['NO_COLOR'] ?? '') === '');
    if (stage.isTTY) stage.write('\x1b[?25l');
  }

  /** Prints lines that stay, above the picture. */
  say(...lines: readonly string[]): void {
    if (!this.stage.isTTY) {
      this.stage.write(lines.map((line) => `${line}\n`).join(''));
      return;
    }
    this.redraw(lines, this.picture);
  }

  /** Replaces the picture; `plain` is its short form for a pipe. */
  show(picture: readonly string[], plain: string): void {
    if (this.stage.isTTY) {
      this.redraw([], picture);
      return;
    }
    if (this.now() < this.nextPlainLine) return;
    this.nextPlainLine = this.now() + plainLineEveryMs;
    this.stage.write(`${plain}\n`);
  }

  /** What is on the stage now stays; the next picture is drawn below it. */
  keepPicture(): void {
    this.picture = [];
  }

  /** Gives the cursor back. */
  close(): void {
    if (this.stage.isTTY) this.stage.write('\x1b[?25h');
  }

  private redraw(above: readonly string[], picture: readonly string[]): void {
    const up = this.picture.length > 0 ? `\x1b[${this.picture.length}A` : '';
    const drawn = picture.map((line) => crop(line, this.stage.columns - 1));
    // Each line ends by clearing what stood there before: no flicker, in one write.
    const text = [...above, ...drawn].map((line) => `${line}\x1b[K\n`).join('');
    this.stage.write(`${up}${text}\x1b[J`);
    this.picture = picture;
  }
}
