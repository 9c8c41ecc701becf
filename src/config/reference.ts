/** The tables of docs/configuration.md, from the tables that are in force: a reference that can't rot. */
import { commandGroup, groupOf, groupTitles } from './flags/help.js';
import { actingGates, featureGates } from './values/feature-gates.js';
import { fieldOf, fieldPaths, type FieldPath } from './fields.js';
import { flags, type Flag } from './flags/flags.js';
import type { Kind } from './values/values.js';

/** Types as documents have them, where that is not what flags call them. */
const documentTypes: Readonly<Record<string, string>> = {
  strings: 'list of string',
  mapStringBool: 'map of bool',
  'pattern=N,...': 'list of {filePattern, verbosity}',
  ip: 'string',
  ipport: 'string',
  ProxyMode: 'string',
  LocalMode: 'string',
  Level: 'int32',
};

const code = (text: string): string => `\`${text}\``;
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

const typeOf = ({ name }: Kind<unknown>): string => documentTypes[name] ?? name;

function defaultCell({ kind, default: initial, defaultText }: Omit<Flag, 'fields' | 'besideConfig'>): string {
  return defaultText ?? code(kind.format(initial) || '""');
}

function fieldRow(path: FieldPath): readonly string[] {
  const field = fieldOf(path);
  return [
    code(path),
    field.flag === undefined ? '' : code(`--${field.flag}`),
    typeOf(field.kind),
    defaultCell(field),
    [field.help, ...(field.limit === undefined ? [] : [`Allowed: ${field.limit.allowed}.`])].join(' '),
  ];
}

/** Every field with its flag, a table for each group. */
function settings(): string {
  return groupTitles
    .filter((title) => title !== commandGroup)
    .map((title) => {
      const rows = fieldPaths.filter((path) => groupOf(path) === title).map(fieldRow);
      return `### ${title}\n\n${table(['field', 'flag', 'type', 'default', 'meaning'], rows)}`;
    })
    .join('\n\n');
}

/** The flags that have no field. */
function commands(): string {
  const rows = [...flags]
    .filter(([, { fields }]) => fields.length === 0)
    .map(([name, flag]) => [
      code(`--${name}`),
      flag.kind.name,
      defaultCell(flag),
      flag.deprecated === undefined ? flag.help : `Deprecated: ${flag.deprecated}. ${flag.help}`,
    ]);
  return table(['flag', 'type', 'default', 'meaning'], rows);
}

/** The gates that change something here. */
function gates(): string {
  const rows = Object.entries(actingGates).map(([name, effect]) => {
    const gate = featureGates.get(name);
    return [code(name), gate?.stage ?? '', gate?.default === true ? 'on' : 'off', effect];
  });
  return table(['gate', 'stage', 'default', 'what it does'], rows);
}

const sections: Readonly<Record<string, () => string>> = { settings, commands, gates };

/**
 * @param document with a pair of lines `<!-- generated: NAME -->` and `<!-- end -->` for each table
 * @returns the document, with what belongs between each pair
 */
export function withReference(document: string): string {
  return Object.entries(sections).reduce((text, [name, generate]) => {
    const marks = new RegExp(`(<!-- generated: ${name} -->\n)[^]*?(<!-- end -->)`);
    if (!marks.test(text)) throw new Error(`the document has no place for ${JSON.stringify(name)}`);
    return text.replace(marks, (_all, begin: string, end: string) => `${begin}\n${generate()}\n\n${end}`);
  }, document);
}
