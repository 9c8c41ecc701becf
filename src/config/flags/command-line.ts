/**
 * The grammar of the command line, that of upstream's flags (spf13/pflag; config.md section 1): `--name=value`,
 * `--name value`, `-v 4`, `-v4`, booleans with an optional `=value`, `_` and `-` the same in names. Of a repeated flag the last
 * counts; lists and maps are collected.
 */
import { controlFlags, flags, type ControlFlag, type ControlValues, type Flag } from './flags.js';
import { closest } from '../values/suggestion.js';
import { Refusal } from '../values/values.js';

export interface CommandLine {
  /** Flags that were given, with values of their kind. */
  readonly given: ReadonlyMap<string, unknown>;
  /** The flags that set no field; defaults filled in. */
  readonly control: ControlValues;
  /** What could not be read: a sentence each. */
  readonly problems: readonly string[];
  /** Deprecated flags that were used: a sentence each. */
  readonly deprecations: readonly string[];
}

/**
 * Reads what can be read, and tells everything else in `problems`.
 * @param command as it is called: its help is the one to read
 */
export function parseCommandLine(args: readonly string[], command = 'kube-proxy'): CommandLine {
  const given = new Map<string, unknown>();
  const problems = new Set<string>();
  const deprecations = new Set<string>();
  const positional: string[] = [];
  const rest = [...args];

  const set = (name: string, flag: Flag, value: string): void => {
    const parsed = flag.kind.parse(value, given.get(name));
    if (parsed instanceof Refusal) {
      problems.add(`invalid argument ${JSON.stringify(value)} for "--${name}" flag: ${parsed.allowed}`);
      return;
    }
    given.set(name, parsed);
    if (flag.deprecated !== undefined) {
      deprecations.add(`Flag --${name} has been deprecated, ${flag.deprecated}`);
    }
  };
  /** An argument that follows, for a flag that needs one. */
  const setNext = (name: string, flag: Flag, as: string): void => {
    const value = rest.shift();
    if (value === undefined) problems.add(`flag needs an argument: ${as}`);
    else set(name, flag, value);
  };

  const long = (arg: string): void => {
    const equals = arg.indexOf('=');
    const name = arg.slice(2, equals < 0 ? undefined : equals).replaceAll('_', '-');
    const flag = flags.get(name);
    if (flag === undefined) {
      const meant = closest(name, flags.keys());
      const advice = meant === undefined ? `${command} --help lists the flags` : `did you mean --${meant}?`;
      problems.add(`unknown flag: --${name} (${advice})`);
      // What follows is most likely its value.
      if (equals < 0 && rest[0]?.startsWith('-') === false) rest.shift();
    } else if (equals >= 0) set(name, flag, arg.slice(equals + 1));
    else if (flag.bare !== undefined) set(name, flag, flag.bare);
    else setNext(name, flag, `--${name}`);
  };

  const letters = (arg: string): void => {
    for (let at = 1; at < arg.length; at++) {
      const letter = arg.charAt(at);
      const [name, flag] = [...flags].find(([, { short }]) => short === letter) ?? [];
      if (name === undefined || flag === undefined) {
        problems.add(`unknown shorthand flag: '${letter}' in ${arg}`);
        return;
      }
      const following = arg.slice(at + 1);
      if (following.startsWith('=')) {
        set(name, flag, following.slice(1));
        return;
      }
      if (flag.bare === undefined) {
        if (following === '') setNext(name, flag, `'${letter}' in ${arg}`);
        else set(name, flag, following);
        return;
      }
      set(name, flag, flag.bare);
    }
  };

  for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
    if (arg === '--') positional.push(...rest.splice(0));
    else if (arg.startsWith('--')) long(arg);
    else if (arg.length > 1 && arg.startsWith('-')) letters(arg);
    else positional.push(arg);
  }
  const words = positional.filter((word) => word !== '');
  if (words.length > 0) {
    const list = words.map((word) => JSON.stringify(word)).join(' ');
    problems.add(`"${command}" takes no arguments, only flags, but got ${list}`);
  }
  for (const [name, value] of given) {
    const flag = flags.get(name);
    // Those that set a field are checked with it.
    if (flag?.fields.length !== 0) continue;
    for (const { allowed } of flag.limit?.find(value) ?? []) {
      problems.add(`--${name}: ${JSON.stringify(flag.kind.write(value))}: ${allowed}`);
    }
  }
  return { given, control: controlValues(given), problems: [...problems], deprecations: [...deprecations] };
}

/** `given` holds values of each flag's own kind, so the types are those of the table. */
function controlValues(given: ReadonlyMap<string, unknown>): ControlValues {
  const names = Object.keys(controlFlags) as ControlFlag[];
  return Object.fromEntries(
    names.map((name) => [name, given.get(name) ?? controlFlags[name].default]),
  ) as ControlValues;
}

/** Every flag with the value it has, as text: what `/flagz` shows. A configuration file is not seen here. */
export function flagValues({ given }: CommandLine): Readonly<Record<string, string>> {
  return Object.fromEntries(
    [...flags].map(([name, { kind, default: initial }]) => [
      name,
      kind.format(given.has(name) ? given.get(name) : initial),
    ]),
  );
}
