/**
 * The state file: lines of JSON, in groups. A group is a number of records and a line that closes it; what follows the
 * last closed group was cut off by a crash and does not count.
 *
 *     {"kubeProxyState":1,"node":"alder","server":"https://10.0.0.1:6443","program":"0.1.0"}
 *     ["Service","orchard/pear",{"metadata":{…},"spec":{…}}]
 *     ["EndpointSlice","orchard/pear-x7k2p",null]                       it is gone
 *     {"commit":1,"at":1763740800000,"digest":"…"}                      of the bytes since the commit before
 *
 * A record replaces earlier ones of the same kind and key. The first group holds everything, later ones what changed.
 */
import { createHash, type Hash } from 'node:crypto';
import type { ResourceKind } from '../objects.js';
import { isObject } from '../kube/decode/json/fields.js';
import { codecs, kinds, type ObjectOf } from './objects.js';

/** Grows when an older program would misunderstand what a newer one wrote. */
export const formatVersion = 1;

export interface Header {
  /** Whose state it is: the node of which the Node object is, … */
  readonly node: string;
  /** … and the API server (origin of its URL): objects of another cluster are not to be served. */
  readonly server: string;
  /** Version of the program that wrote it; for people. */
  readonly program: string;
}

export interface Commit {
  /** 1 for the first of a file. */
  readonly number: number;
  /** When the objects were known to be the server's, milliseconds since the epoch. */
  readonly at: number;
  readonly digest: string;
}

/** Covers the bytes of a group and its place in the file, not its own line. */
export class GroupDigest {
  private readonly hash: Hash;

  constructor(readonly number: number) {
    this.hash = createHash('sha256').update(`group ${number}\n`);
  }

  update(bytes: Buffer): void {
    this.hash.update(bytes);
  }

  /** Ends the group. */
  digest(at: number): string {
    return this.hash.update(`at ${at}\n`).digest('hex').slice(0, 32);
  }
}

export function headerLine({ node, server, program }: Header): string {
  return `${JSON.stringify({ kubeProxyState: formatVersion, node, server, program })}\n`;
}

export function commitLine({ number, at, digest }: Commit): string {
  return `${JSON.stringify({ commit: number, at, digest })}\n`;
}

export function recordLine<K extends ResourceKind>(
  kind: K,
  key: string,
  object: ObjectOf[K] | undefined,
): string {
  const body = object === undefined ? 'null' : JSON.stringify(codecs[kind].write(object));
  return `["${kind}",${JSON.stringify(key)},${body}]\n`;
}

/** @returns undefined when the line is none; version 0 stands for one that is not a number */
export function parseHeader(line: string): (Header & { readonly version: number }) | undefined {
  const value = parseObject(line);
  if (value === undefined || !('kubeProxyState' in value)) return undefined;
  const { kubeProxyState: version, node, server, program } = value;
  return {
    version: typeof version === 'number' ? version : 0,
    node: typeof node === 'string' ? node : '',
    server: typeof server === 'string' ? server : '',
    program: typeof program === 'string' ? program : '',
  };
}

/** @returns undefined when the line is none */
export function parseCommit(line: string): Commit | undefined {
  const { commit: number, at, digest } = parseObject(line) ?? {};
  if (typeof number !== 'number' || typeof at !== 'number' || typeof digest !== 'string') return undefined;
  return { number, at, digest };
}

function parseObject(line: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export interface RecordHead {
  readonly kind: ResourceKind;
  readonly key: string;
  readonly gone: boolean;
}

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;

/**
 * What a record is about, without the object: bytes[start, end) is the line without its line feed.
 * @returns undefined when it is no record
 */
export function recordHead(bytes: Buffer, start: number, end: number): RecordHead | undefined {
  // ["KIND","KEY",…
  const kindEnd = bytes.indexOf(quote, start + 2);
  const keyStart = kindEnd + 3;
  const keyEnd = kindEnd < 0 ? -1 : stringEnd(bytes, keyStart, end);
  if (keyEnd < 0 || keyEnd + 2 >= end || bytes[keyEnd + 1] !== comma) return undefined;
  const name = bytes.toString('latin1', start + 2, kindEnd);
  const kind = kinds.find((known) => known === name);
  if (kind === undefined) return undefined;
  const key = bytes.toString('utf8', keyStart, keyEnd);
  return {
    kind,
    // Names that need escapes do not exist in a cluster, but this is not the place to be hurt by one.
    key: key.includes('\\') ? String(JSON.parse(`"${key}"`)) : key,
    gone: bytes[keyEnd + 2] === 0x6e,
  };
}

/** The quote that closes a JSON string, or -1. */
function stringEnd(bytes: Buffer, start: number, end: number): number {
  for (let i = start; i < end; i++) {
    if (bytes[i] === backslash) i++;
    else if (bytes[i] === quote) return i;
  }
  return -1;
}

/** The object of a record; undefined when there is none. Decode it with the kind's codec. */
export function recordBody(line: string): Readonly<Record<string, unknown>> | undefined {
  const value: unknown = JSON.parse(line);
  const body: unknown = Array.isArray(value) ? value[2] : undefined;
  return isObject(body) ? body : undefined;
}
