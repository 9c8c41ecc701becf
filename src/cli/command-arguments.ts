/**
 * Arguments of commands beside the proxy itself (`kube-proxy ipvs …`): flags of their own, in the grammar of all others,
 * beside which the proxy's flags count, so that a command can be given what the proxy was given.
 */
import { ConfigError } from '../config/errors.js';

export interface CommandFlag {
  /** '-n' is 'n'. */
  readonly short?: string;
  /** What may be given; undefined: any text. */
  readonly choice?: readonly string[];
  /** What the help shows as the argument; undefined: it takes none. */
  readonly argument?: string;
  readonly help: string;
}

export interface SplitArguments<Name extends string> {
  /** Without those that were not given; a flag without argument is 'true'. */
  readonly own: Readonly<Partial<Record<Name, string>>>;
  /** For parseCommandLine(). */
  readonly rest: readonly string[];
}

/** @throws ConfigError for a value that can't be */
export function splitArguments<Name extends string>(
  args: readonly string[],
  flags: Readonly<Record<Name, CommandFlag>>,
): SplitArguments<Name> {
  const own: Partial<Record<Name, string>> = {};
  const rest: string[] = [];
  const problems: string[] = [];
  const names = Object.keys(flags) as Name[];
  const waiting = [...args];
  for (let arg = waiting.shift(); arg !== undefined; arg = waiting.shift()) {
    const [, long, short, value] = /^(?:--([^=]+)|-([^-=]))(?:=?([^]*))$/.exec(arg) ?? [];
    const name = names.find((candidate) =>
      long === undefined ? short !== undefined && flags[candidate].short === short : candidate === long,
    );
    if (name === undefined) {
      rest.push(arg);
      continue;
    }
    const { argument, choice } = flags[name];
    const given = argument === undefined ? 'true' : hasValue(arg, value) ? value : waiting.shift();
    if (given === undefined) problems.push(`flag needs an argument: --${name}`);
    else if (choice?.includes(given) === false)
      problems.push(
        `invalid argument ${JSON.stringify(given)} for "--${name}" flag: must be ${choice.join(' or ')}`,
      );
    else own[name] = given;
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return { own, rest };
}

/** `--name=` has one, an empty one; `--name` and `-n` have none. */
function hasValue(arg: string, value: string | undefined): value is string {
  return value !== undefined && (value !== '' || arg.endsWith('='));
}

/** Usage, what the command does, and its flags. */
export function commandHelp(
  name: string,
  about: string,
  flags: Readonly<Record<string, CommandFlag>>,
): string {
  const lines = [about, '', 'Usage:', `  kube-proxy ${name} [flags]`, '', 'Flags:'];
  for (const [flag, { short, argument, help }] of Object.entries(flags)) {
    const letter = short === undefined ? '    ' : `-${short}, `;
    lines.push(`  ${letter}--${flag}${argument === undefined ? '' : ` ${argument}`}`, `          ${help}`);
  }
  lines.push(
    '',
    "The proxy's own flags (--config, --kubeconfig, --manifests and so on) say where names come from;",
    'kube-proxy --help lists them.',
  );
  return `${lines.join('\n')}\n`;
}
