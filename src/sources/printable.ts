/**
 * Text of an API object, fit to be shown to people. What an object says may be of any length and hold anything: control
 * characters that move a terminal's cursor, characters that turn the direction of what follows.
 */

/** Characters of a longest name that the API lets pass (DNS subdomain, RFC 1123). */
export const longestName = 253;

/** C0 and C1 controls, line and paragraph separators, marks and overrides of direction, the byte order mark. */
const unprintable =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * The text with unprintable characters as \\uXXXX, cut to `max` characters with a remark how long it was.
 * @param max characters (UTF-16 code units) of the text that are shown
 */
export function printable(text: string, max: number): string {
  const shown = text.length <= max ? text : text.slice(0, max);
  const plain = shown.replace(
    unprintable,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return text.length <= max ? plain : `${plain}… (${text.length} characters)`;
}
