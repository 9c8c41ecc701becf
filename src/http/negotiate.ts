/**
 * The forms of /flagz and /statusz (KEP-4828, KEP-4827; observability.md section 3.1): text for people, or a versioned
 * object for programs that ask for exactly that.
 */
import { stringify } from 'yaml';
import type { Answer } from './routes.js';

export const group = 'config.k8s.io';
const current = 'v1beta1';
const deprecated = 'v1alpha1';
const structuredTypes = ['application/json', 'application/yaml'] as const;

type StructuredType = (typeof structuredTypes)[number];

type Form =
  | { readonly kind: 'text' }
  | { readonly kind: 'structured'; readonly type: StructuredType; readonly version: string };

export interface Page {
  /** 'Flagz' or 'Statusz'. */
  readonly kind: string;
  readonly text: () => string;
  /** What comes after kind, apiVersion and metadata. */
  readonly fields: () => Readonly<Record<string, unknown>>;
}

/** @param accept the request's Accept header */
export function present(page: Page, accept: string | undefined): Answer {
  const form = choose(page.kind, accept);
  if (form === undefined) return notAcceptable(page.kind);
  if (form.kind === 'text') {
    return {
      status: 200,
      headers: { 'Content-Type': 'text/plain; charset=utf-8' },
      body: page.text(),
    };
  }
  const { type, version } = form;
  const object = {
    kind: page.kind,
    apiVersion: `${group}/${version}`,
    metadata: { name: 'kube-proxy' },
    ...page.fields(),
  };
  return {
    status: 200,
    headers: {
      'Content-Type': `${type};g=${group};v=${version};as=${page.kind}`,
      ...(version === deprecated
        ? { Warning: `299 - "${group}/${deprecated} ${page.kind} is deprecated, ask for ${current}"` }
        : {}),
    },
    body: type === 'application/json' ? `${JSON.stringify(object)}\n` : stringify(object),
  };
}

/** The first alternative, by preference, that can be had. */
function choose(kind: string, accept: string | undefined): Form | undefined {
  if (accept === undefined || accept.trim() === '') return { kind: 'text' };
  const alternatives = accept
    .split(',')
    .map(parseAlternative)
    .filter(({ quality }) => quality > 0)
    .sort((a, b) => b.quality - a.quality);
  for (const { type, parameters } of alternatives) {
    if (['*/*', 'text/*', 'text/plain'].includes(type)) return { kind: 'text' };
    const structured = structuredTypes.find((candidate) => candidate === type);
    const version = parameters.get('v');
    if (
      structured !== undefined &&
      (version === current || version === deprecated) &&
      parameters.get('g') === group &&
      parameters.get('as') === kind
    )
      return { kind: 'structured', type: structured, version };
  }
  return undefined;
}

interface Alternative {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly quality: number;
}

function parseAlternative(text: string): Alternative {
  const [type = '', ...rest] = text.split(';').map((part) => part.trim());
  const parameters = new Map(
    rest.map((parameter) => {
      const [name = '', value = ''] = parameter.split(/=(.*)/s);
      return [name.trim().toLowerCase(), value.trim().replaceAll(/^"|"$/g, '')] as const;
    }),
  );
  const quality = Number(parameters.get('q') ?? '1');
  return { type: type.toLowerCase(), parameters, quality: Number.isNaN(quality) ? 0 : quality };
}

function notAcceptable(kind: string): Answer {
  const types = structuredTypes.map((type) => `${type};v=${current};g=${group};as=${kind}`);
  return {
    status: 406,
    headers: { 'Content-Type': 'application/json' },
    body: `${JSON.stringify({
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: `only these media types can be had: text/plain, ${types.join(', ')}`,
      reason: 'NotAcceptable',
      code: 406,
    })}\n`,
  };
}

/** Head of a text page. */
export function title(name: string): string {
  return `\nkube-proxy ${name}\nWarning: this page is for people; its form may change at any time. Programs ask for a versioned one.\n`;
}
