/** `--vmodule`: more details of some parts than of the rest. */

export interface VmoduleItem {
  /** Name of a source file without its ending, or of a logger; `*` and `?` as in file names. */
  readonly filePattern: string;
  readonly verbosity: number;
}

/** The verbosity that the first matching pattern gives to a name; undefined: none matches. */
export class Vmodule {
  private readonly patterns: readonly (readonly [RegExp, number])[];
  private readonly known = new Map<string, number | undefined>();

  constructor(items: readonly VmoduleItem[]) {
    this.patterns = items.map(({ filePattern, verbosity }) => [glob(filePattern), verbosity]);
  }

  get empty(): boolean {
    return this.patterns.length === 0;
  }

  /** @param name of a logger, or of a source file, with or without its ending */
  verbosityOf(name: string): number | undefined {
    if (this.known.has(name)) return this.known.get(name);
    const bare = name.replace(/\.[jt]s$/, '');
    const verbosity = this.patterns.find(([pattern]) => pattern.test(bare))?.[1];
    this.known.set(name, verbosity);
    return verbosity;
  }
}

function glob(pattern: string): RegExp {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`);
}
