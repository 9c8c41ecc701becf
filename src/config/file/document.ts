/**
 * A KubeProxyConfiguration document, YAML or JSON, read into values of the fields that it sets, each with its line. Unknown
 * and duplicate fields are told with their paths: a slip in a field's name is otherwise invisible.
 */
import {
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Document,
  type Node,
  type YAMLMap,
} from 'yaml';
import { DepthError, parseDocuments } from '../../yaml/documents.js';
import { ConfigError } from '../errors.js';
import { configApiVersion, fieldOf, fieldPaths, configKind, type FieldPath } from '../fields.js';
import { closest } from '../values/suggestion.js';
import { bool, Refusal, type Kind } from '../values/values.js';

export interface ConfigDocument {
  /** Values of their fields' kinds; fields that are absent or null are not there. */
  readonly values: ReadonlyMap<FieldPath, unknown>;
  /** Fields whose values are of another type: a sentence each. */
  readonly problems: readonly string[];
  /** Unknown and duplicate fields: a sentence each. */
  readonly oddities: readonly string[];
  /** How messages name a field: `file:line: path`, or an item of a list. */
  name(path: FieldPath, index?: number): string;
}

const header: ReadonlyMap<string, string> = new Map([
  ['apiVersion', configApiVersion],
  ['kind', configKind],
]);
const isFieldPath = (path: string): path is FieldPath => (fieldPaths as readonly string[]).includes(path);
const isSection = (path: string): boolean => fieldPaths.some((field) => field.startsWith(`${path}.`));

/**
 * @param path names the document in messages
 * @throws ConfigError when it is not YAML, or not a KubeProxyConfiguration of v1alpha1
 */
export function readDocument(path: string, content: string): ConfigDocument {
  const lines = new LineCounter();
  // Later documents of the same file are not read; upstream passes over them, too.
  let document: Document.Parsed | undefined;
  try {
    [document] = parseDocuments(content, lines, { uniqueKeys: false });
  } catch (error) {
    if (!(error instanceof DepthError)) throw error;
    const { line, col } = lines.linePos(error.offset);
    throw new ConfigError([`${path}:${line}:${col}: ${error.message}`], { cause: error });
  }
  if (document === undefined) throw new ConfigError([`${path}: the file is empty`]);
  const syntax = document.errors[0];
  if (syntax !== undefined) {
    const { line, col } = lines.linePos(syntax.pos[0]);
    throw new ConfigError([`${path}:${line}:${col}: ${syntax.message.split('\n')[0] ?? 'not YAML'}`]);
  }
  return new Reader(path, document, lines).read();
}

/** A name of a map and what stands there. */
interface Member {
  readonly name: string;
  readonly key: Node;
  readonly value: Node;
}

class Reader {
  private readonly values = new Map<FieldPath, unknown>();
  private readonly nodes = new Map<FieldPath, Node>();
  private readonly problems: string[] = [];
  private readonly oddities: string[] = [];
  /** What tells that this is a document of another kind. */
  private readonly foreign: string[] = [];
  private readonly seenHeader = new Set<string>();

  constructor(
    private readonly path: string,
    private readonly document: Document.Parsed,
    private readonly lines: LineCounter,
  ) {}

  read(): ConfigDocument {
    const root = this.resolve(this.document.contents);
    if (!isMap(root))
      throw new ConfigError([`${this.path}: must be a map of fields, beginning with apiVersion`]);
    this.section(root, '');
    for (const [name, value] of header) {
      if (!this.seenHeader.has(name))
        this.foreign.push(`${this.path}: ${name} is missing: it must be ${value}`);
    }
    if (this.foreign.length > 0) throw new ConfigError(this.foreign);
    const { values, problems, oddities, nodes } = this;
    return {
      values,
      problems,
      oddities,
      name: (field, index) => {
        const node = nodes.get(field);
        const item = isSeq(node) && index !== undefined ? node.items[index] : undefined;
        const name = index === undefined || !isSeq(node) ? field : `${field}[${index}]`;
        return node === undefined
          ? `${this.path}: ${name}`
          : `${this.at(isNode(item) ? item : node)}: ${name}`;
      },
    };
  }

  /** Fields below `prefix`, which is empty or ends with a dot. */
  private section(map: YAMLMap, prefix: string): void {
    for (const member of this.pairs(map, prefix)) {
      const { value } = member;
      const path = `${prefix}${member.name}`;
      if (header.has(path)) this.checkHeader(path, value);
      else if (isFieldPath(path)) this.field(path, value);
      else if (!isSection(path)) this.unknown(path, member);
      else if (isMap(value)) this.section(value, `${path}.`);
      else if (!isNull(value)) this.problems.push(`${this.at(value)}: ${path}: must have fields of its own`);
    }
  }

  private checkHeader(name: string, value: Node): void {
    this.seenHeader.add(name);
    const found: unknown = value.toJS(this.document);
    const expected = header.get(name);
    if (found === expected) return;
    this.foreign.push(`${this.at(value)}: ${name}: ${JSON.stringify(found)}: must be ${expected ?? ''}`);
  }

  private field(path: FieldPath, value: Node): void {
    this.nodes.set(path, value);
    this.values.delete(path);
    this.oddMembers(path, value);
    if (isNull(value)) return;
    const { kind } = fieldOf(path);
    let data: unknown;
    let shown: string;
    try {
      data = this.plain(value, kind);
      shown = JSON.stringify(data);
    } catch {
      // Anchors in a circle, or by the million.
      this.problems.push(`${this.at(value)}: ${path}: the anchors in it can't be followed`);
      return;
    }
    const parsed = kind.read(data);
    if (parsed instanceof Refusal) {
      this.problems.push(`${this.at(value)}: ${path}: ${shown}: ${parsed.allowed}`);
    } else this.values.set(path, parsed);
  }

  private plain(value: Node, kind: Kind<unknown>): unknown {
    const data: unknown = value.toJS(this.document);
    // Upstream reads YAML 1.1, whose switches have more words.
    if (kind.name === bool.name && isScalar(value) && value.type === 'PLAIN' && typeof data === 'string') {
      if (/^(y|Y|yes|Yes|YES|on|On|ON)$/.test(data)) return true;
      if (/^(n|N|no|No|NO|off|Off|OFF)$/.test(data)) return false;
    }
    return data;
  }

  /** Duplicates inside of a field that is a map or a list of maps, and members that such items do not have. */
  private oddMembers(path: FieldPath, value: Node): void {
    if (isMap(value)) this.pairs(value, `${path}.`);
    if (!isSeq(value)) return;
    value.items.forEach((item, index) => {
      if (!isMap(item)) return;
      for (const member of this.pairs(item, `${path}[${index}].`)) {
        if (path !== 'logging.vmodule' || vmoduleMembers.has(member.name)) continue;
        this.unknown(`${path}[${index}].${member.name}`, member);
      }
    });
  }

  /** The members of a map, the last of each name; earlier ones are told. */
  private pairs(map: YAMLMap, prefix: string): readonly Member[] {
    const found = new Map<string, Member>();
    for (const { key, value } of map.items) {
      const node = this.resolve(value);
      if (isAlias(value) && node === undefined) {
        this.problems.push(`${this.at(value)}: *${value.source}: there is no such anchor before it`);
      }
      if (!isNode(key) || node === undefined) continue;
      const name = String(key.toJS(this.document));
      const before = found.get(name);
      if (before !== undefined) {
        this.oddities.push(
          `${this.at(key)}: duplicate field ${JSON.stringify(prefix + name)}: line ${this.line(before.key) ?? '?'} sets it already; the last one counts`,
        );
      }
      found.set(name, { name, key, value: node });
    }
    return [...found.values()];
  }

  private unknown(path: string, { key }: Member): void {
    const meant = closest(path, [...fieldPaths, ...header.keys()]);
    const advice = meant === undefined ? '' : ` (did you mean ${JSON.stringify(meant)}?)`;
    this.oddities.push(`${this.at(key)}: unknown field ${JSON.stringify(path)}${advice}: it has no effect`);
  }

  private resolve(node: unknown): Node | undefined {
    const target = isAlias(node) ? node.resolve(this.document) : node;
    return isNode(target) ? target : undefined;
  }

  private line(node: Node): number | undefined {
    return node.range ? this.lines.linePos(node.range[0]).line : undefined;
  }

  private at(node: Node): string {
    const line = this.line(node);
    return line === undefined ? this.path : `${this.path}:${line}`;
  }
}

const vmoduleMembers = new Set(['filePattern', 'verbosity']);

function isNull(node: Node): boolean {
  return isScalar(node) && node.value === null;
}
