/** Where lines go: all to standard error, or information to standard output, held back for a while if that is asked for. */
import { guarded } from '../callbacks/guarded.js';
import type { Severity } from './line.js';

export interface OutputSettings {
  /** Information to standard output, warnings and errors to standard error. */
  readonly splitStream?: boolean;
  /** Bytes of information that may be held back, with `splitStream`; 0: none. */
  readonly infoBufferBytes?: number;
  /** How long it may be held back. */
  readonly flushFrequencyMs?: number;
}

/** Each receives whole lines. */
export interface Streams {
  info(text: string): void;
  error(text: string): void;
}

/** The streams of this process. A reader that went away costs the log, not the process. */
export function standardStreams(): Streams {
  const write = (stream: NodeJS.WriteStream): ((text: string) => void) => {
    if (stream.listenerCount('error') === 0) stream.on('error', () => undefined);
    return (text) => void stream.write(text);
  };
  return { info: write(process.stdout), error: write(process.stderr) };
}

export class Output {
  private held: string[] = [];
  private heldBytes = 0;
  private timer: NodeJS.Timeout | undefined;
  private flushAtExit: (() => void) | undefined;

  constructor(
    private readonly streams: Streams,
    private settings: OutputSettings,
  ) {}

  configure(settings: OutputSettings): void {
    this.flush();
    this.settings = settings;
  }

  write(severity: Severity, line: string): void {
    const { splitStream = false, infoBufferBytes = 0 } = this.settings;
    if (severity !== 'I' || !splitStream) this.streams.error(line);
    else if (infoBufferBytes === 0) this.streams.info(line);
    else this.hold(line, infoBufferBytes);
  }

  /** Writes what is held back. */
  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.held.length === 0) return;
    const text = this.held.join('');
    this.held = [];
    this.heldBytes = 0;
    this.streams.info(text);
  }

  private hold(line: string, most: number): void {
    this.held.push(line);
    this.heldBytes += Buffer.byteLength(line);
    if (this.heldBytes >= most) {
      this.flush();
      return;
    }
    this.timer ??= setTimeout(
      guarded('write the log', () => {
        this.flush();
      }),
      this.settings.flushFrequencyMs ?? 5000,
    ).unref();
    if (this.flushAtExit !== undefined) return;
    this.flushAtExit = () => {
      this.flush();
    };
    process.once('exit', this.flushAtExit);
  }
}
