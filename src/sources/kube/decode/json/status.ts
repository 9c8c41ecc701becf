/** meta/v1 Status in JSON. */
import type { ApiStatus } from '../decoded.js';
import { isObject, type JsonObject } from './fields.js';

/** Lenient: this is for messages, and a proxy in between may answer in its own way. */
export function statusFromJson(object: JsonObject): ApiStatus {
  const details = isObject(object['details']) ? object['details'] : {};
  const causes = Array.isArray(details['causes']) ? details['causes'] : [];
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const number = (value: unknown): number => (typeof value === 'number' ? value : 0);
  return {
    code: number(object['code']),
    reason: text(object['reason']),
    message: text(object['message']),
    retryAfterSeconds: number(details['retryAfterSeconds']),
    causes: causes.map((cause: unknown) => (isObject(cause) ? text(cause['reason']) : '')),
  };
}
