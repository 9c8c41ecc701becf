/** Reading fields of parsed JSON without trusting it: absent and null give the default, a wrong type names the field. */
import { BrokenObjectError } from '../../errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;

function describe(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  return `${typeof value} ${JSON.stringify(value)}`;
}

function wrong(path: string, expected: string, value: unknown): never {
  throw new BrokenObjectError(path, `must be ${expected}, not ${describe(value)}`);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const nothing: JsonObject = Object.freeze({});

export function objectAt(parent: JsonObject, key: string, path: string): JsonObject {
  const value = parent[key];
  if (value === undefined || value === null) return nothing;
  return isObject(value) ? value : wrong(`${path}${key}`, 'an object', value);
}

export function optionalText(parent: JsonObject, key: string, path: string): string | undefined {
  const value = parent[key];
  if (value === undefined || value === null) return undefined;
  return typeof value === 'string' ? value : wrong(`${path}${key}`, 'a string', value);
}

export function textAt(parent: JsonObject, key: string, path: string): string {
  return optionalText(parent, key, path) ?? '';
}

export function optionalInteger(parent: JsonObject, key: string, path: string): number | undefined {
  const value = parent[key];
  if (value === undefined || value === null) return undefined;
  return typeof value === 'number' && Number.isSafeInteger(value)
    ? value
    : wrong(`${path}${key}`, 'a whole number', value);
}

export function integerAt(parent: JsonObject, key: string, path: string): number {
  return optionalInteger(parent, key, path) ?? 0;
}

export function optionalBoolean(parent: JsonObject, key: string, path: string): boolean | undefined {
  const value = parent[key];
  if (value === undefined || value === null) return undefined;
  return typeof value === 'boolean' ? value : wrong(`${path}${key}`, 'true or false', value);
}

export function listAt(parent: JsonObject, key: string, path: string): readonly unknown[] {
  const value = parent[key];
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? value : wrong(`${path}${key}`, 'a list', value);
}

export function objectItem(value: unknown, path: string): JsonObject {
  return isObject(value) ? value : wrong(path, 'an object', value);
}

export function textItem(value: unknown, path: string): string {
  return typeof value === 'string' ? value : wrong(path, 'a string', value);
}
