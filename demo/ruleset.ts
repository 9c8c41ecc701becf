/** The part of the kernel's rules that does the work for my-app, as nft prints it, with a word on each. */
import { spawnSync } from 'node:child_process';
import { DemoError } from './errors.js';
import { service } from './manifests.js';

export interface Exhibit {
  readonly explanation: string;
  readonly command: string;
  /** What nft prints, without the table and the declarations around it. */
  readonly lines: readonly string[];
}

const table = ['ip', 'kube-proxy'] as const;

function nft(kind: 'map' | 'chain' | 'table', name: readonly string[]): string | undefined {
  // A table is listed without the elements of its maps.
  const args = [...(kind === 'table' ? ['--terse'] : []), 'list', kind, ...table, ...name];
  const { error, status, stdout, stderr } = spawnSync('nft', args, { encoding: 'utf8' });
  if (error !== undefined) return undefined;
  if (status !== 0) throw new DemoError('SETUP_FAILED', `nft ${args.join(' ')} failed: ${stderr.trim()}`);
  return stdout;
}

/** The elements of a map, one a line, without the braces. */
function elements(listing: string): string[] {
  const inner = /elements = \{([^}]*)\}/.exec(listing)?.[1] ?? '';
  return inner.split(',').map((element) => element.trim());
}

/** The rules of a chain. */
function rules(listing: string): string[] {
  const inner = /chain \S+ \{([^}]*)\}/.exec(listing)?.[1] ?? '';
  return inner
    .split('\n')
    .map((rule) => rule.trim())
    .filter((rule) => rule !== '');
}

function exhibit(
  kind: 'map' | 'chain',
  name: string,
  explanation: string,
  pick: (line: string) => boolean,
): Exhibit {
  const listing = nft(kind, [name]) ?? '';
  return {
    explanation,
    command: `nft list ${kind} ${table.join(' ')} ${name}`,
    lines: (kind === 'map' ? elements(listing) : rules(listing)).filter(pick),
  };
}

/** What a packet to the Service meets, in its order. Undefined when there is no nft to ask. */
export function exhibits(): readonly Exhibit[] | undefined {
  if (nft('table', []) === undefined) return undefined;
  const ofService = (line: string): boolean => line.startsWith(service.ip);
  const addresses = exhibit('map', 'service-ips', '', ofService);
  const behaviour = /: (\S+)$/.exec(addresses.lines[0] ?? '')?.[1] ?? '';
  const classes = exhibit('map', 'service-classes', '', (line) => line.startsWith(`${behaviour} `));
  const chain = /goto (\S+)/.exec(classes.lines[0] ?? '')?.[1];
  if (chain === undefined)
    throw new DemoError('SETUP_FAILED', `${service.name} is not in ${table.join(' ')}`);
  return [
    {
      ...addresses,
      explanation: `The virtual address has behaviour ${behaviour}: a cluster IP, three endpoints`,
    },
    { ...classes, explanation: 'A behaviour is a chain, shared by all Services that behave alike' },
    exhibit(
      'chain',
      chain,
      'The load balancing: mark strangers for masquerading, draw a slot, go there',
      () => true,
    ),
    exhibit(
      'map',
      'endpoints',
      'The slots. A change of the cluster changes elements like these, no rules',
      ofService,
    ),
  ];
}

/** How many chains the table has, undefined without nft. */
export function chainCount(): number | undefined {
  return nft('table', [])?.match(/^\tchain /gm)?.length;
}
