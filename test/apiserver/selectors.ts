/** The selectors that clients of this double use. */

export interface Selectable {
  readonly labels: Readonly<Record<string, string>>;
  /** Field path to value, e.g. 'metadata.name'. */
  readonly fields: Readonly<Record<string, string>>;
}

export type Selector = (object: Selectable) => boolean;

/**
 * Label terms: `key`, `!key`, `key=value`, `key==value`, `key!=value`. Field terms: the last three.
 * @throws Error for a term that is none of these
 */
export function selector(labelSelector: string, fieldSelector: string): Selector {
  const terms = [
    ...split(labelSelector).map((term) => labelTerm(term)),
    ...split(fieldSelector).map((term) => fieldTerm(term)),
  ];
  return (object) => terms.every((term) => term(object));
}

function split(text: string): readonly string[] {
  return text
    .split(',')
    .map((term) => term.trim())
    .filter((term) => term !== '');
}

const termPattern = /^([^!=\s]+)\s*(==|=|!=)\s*([^!=\s]*)$/;

function labelTerm(term: string): Selector {
  if (/^![^!=\s]+$/.test(term)) return ({ labels }) => labels[term.slice(1)] === undefined;
  if (/^[^!=\s]+$/.test(term)) return ({ labels }) => labels[term] !== undefined;
  const [, key, operator, value] = termPattern.exec(term) ?? [];
  if (key === undefined) throw new Error(`unable to parse requirement: ${term}`);
  return ({ labels }) => (labels[key] === value) === (operator !== '!=');
}

function fieldTerm(term: string): Selector {
  const [, key, operator, value] = termPattern.exec(term) ?? [];
  if (key === undefined) throw new Error(`invalid selector: '${term}'`);
  return ({ fields }) => {
    if (fields[key] === undefined) throw new Error(`field label not supported: ${key}`);
    return (fields[key] === value) === (operator !== '!=');
  };
}
