/** What `npm pack` would put into a package. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

export const root = join(import.meta.dirname, '..', '..', '..');

export interface Packed {
  readonly filename: string;
  /** Paths inside the package. */
  readonly paths: readonly string[];
}

/** Runs a command to its end. @throws Error with its output when it fails */
export function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    timeout: 120_000,
  });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stdout + stderr}`);
}

/** @param args of npm pack: '--dry-run', a destination, a workspace */
export function pack(...args: readonly string[]): Packed {
  const [packed] = JSON.parse(
    run('npm', ['pack', '--json', '--ignore-scripts', '--loglevel=error', ...args], root),
  ) as { readonly filename: string; readonly files: readonly { readonly path: string }[] }[];
  if (packed === undefined) throw new Error('npm pack made nothing');
  return { filename: packed.filename, paths: packed.files.map(({ path }) => path) };
}

/** Files that have no business in a package. */
export function strays(paths: readonly string[]): string[] {
  return paths.filter((path) => /\.(test|fixture)\.|\.tsbuildinfo$|\/bench\/|tsconfig/.test(path));
}
