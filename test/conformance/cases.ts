/** The case files: their schema, and how a row becomes the tests that are run (its twins over IPv6, UDP and SCTP). */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import YAML from 'yaml';
import { z } from 'zod';
import type { Family } from './addresses.js';
import { toV6, translateText } from './addresses.js';

/** A row is written for TCP, where it does not say otherwise, and translated for the others. */
export const transports = ['tcp', 'udp', 'sctp'] as const;
export type TransportName = (typeof transports)[number];

const oneOrMany = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (Array.isArray(value) ? value : [value]));
const labels = z.record(z.string(), z.string());

const sliceSchema = z.strictObject({
  /** '' is the only slice of the service. */
  name: z.string().default(''),
  eps: z.string(),
  family: z.enum(['v4', 'v6', 'FQDN']).optional(),
  /** Ports of the slice; without it those of the service. */
  ports: z.array(z.string()).optional(),
  /** Which service the slice's label names; null leaves the label out. */
  service: z.string().nullable().optional(),
  namespace: z.string().optional(),
  labels: labels.default({}),
  annotations: labels.default({}),
});

const serviceSchema = z.strictObject({
  type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName']).optional(),
  cip: oneOrMany.optional(),
  families: z.array(z.string()).optional(),
  port: z.string().optional(),
  ports: z.array(z.string()).optional(),
  np: z.number().optional(),
  xip: oneOrMany.optional(),
  /** `192.0.2.90`, `192.0.2.90 Proxy`, `lb.example.org`. */
  vip: oneOrMany.optional(),
  sr: oneOrMany.optional(),
  sa: z.number().optional(),
  itp: z.enum(['C', 'L']).optional(),
  etp: z.enum(['C', 'L']).optional(),
  hc: z.number().optional(),
  /** Fields of the real object that have no shorthand, merged into its spec. */
  spec: z.record(z.string(), z.unknown()).optional(),
  labels: labels.optional(),
  annotations: labels.optional(),
  /** A name of this length instead of the usual one. */
  'long-names': z.boolean().optional(),
  eps: z.string().nullable().optional(),
  slices: z.array(sliceSchema).optional(),
  /** This many services like this one, at consecutive addresses. */
  copies: z.number().optional(),
});

export type ServiceSpec = z.infer<typeof serviceSchema>;
export type SliceSpec = z.infer<typeof sliceSchema>;

/** Overrides; null takes a field or a whole service away. */
const servicePatches = z.record(z.string(), z.record(z.string(), z.unknown()).nullable());

const expectation = z.union([
  z.string(),
  z.strictObject({
    nft: z.string(),
    ipt: z.string(),
    auto: z.string().optional(),
    ipvs: z.string().optional(),
  }),
]);

const plainAnswer = z.union([
  z.literal('refused'),
  z.literal('silent'),
  z.strictObject({
    status: z.number(),
    body: z.record(z.string(), z.unknown()).default({}),
    headers: labels.default({}),
  }),
]);

const httpAnswer = z.union([
  plainAnswer,
  z.strictObject({
    nft: plainAnswer,
    ipt: plainAnswer,
    auto: plainAnswer.optional(),
    ipvs: plainAnswer.optional(),
  }),
]);

export type HttpExpectation = z.infer<typeof plainAnswer>;

const sendFields = {
  send: z.string().optional(),
  expect: expectation.optional(),
  better: expectation.optional(),
  connections: z.number().optional(),
  /** Each endpoint's part of the connections is even, give or take this many percentage points. */
  share: z.number().optional(),
  /** Names what each client reached, for a later comparison. */
  as: z.string().optional(),
  /** Repeat until the expectation holds, at most this many seconds. */
  within: z.number().optional(),
  get: z.string().optional(),
  method: z.string().optional(),
  answer: httpAnswer.optional(),
};

const stepSchema = z.strictObject({
  ...sendFields,
  change: servicePatches.optional(),
  delete: z.array(z.string()).optional(),
  unsynced: z.boolean().optional(),
  node: z.strictObject({ zone: z.string().nullable().optional() }).optional(),
  'service-cidrs': z.array(z.string()).optional(),
  hold: z.string().optional(),
  again: z.string().optional(),
  /** The server sees the same source address and port as when the connection or flow was opened. */
  unbroken: z.boolean().optional(),
  steady: z.string().optional(),
  'steady-end': z.string().optional(),
  proxy: z.enum(['terminate', 'kill', 'start', 'cleanup']).optional(),
  api: z.enum(['withhold-slices', 'deliver-slices']).optional(),
  'alder-addresses': z.array(z.string()).optional(),
  'alder-rules': z.string().optional(),
  /** From here on the host drops what nobody accepts. */
  'alder-drops': z.enum(['forward', 'input']).optional(),
  'alder-shows': z.strictObject({ command: z.string(), matches: z.string() }).optional(),
  /** Takes the proxy's tables away and keeps them from it (true), or gives them back (false). */
  'lock-tables': z.boolean().optional(),
  /** Puts an element with another verdict where the next service port of this address will be written. */
  obstruct: z.string().optional(),
  occupy: z.string().optional(),
  vacate: z.string().optional(),
  /** Who sends the HTTP request of `get`; XA without it. */
  from: z.string().optional(),
  /** One connection from PA to every copy of a service. */
  'every-copy': z.string().optional(),
  event: z.string().optional(),
  stray: z.string().optional(),
  wait: z.number().optional(),
});

export type Step = z.infer<typeof stepSchema>;

const proxySchema = z.strictObject({
  /** null: not set at all. */
  'nodeport-addresses': z.array(z.string()).nullable().optional(),
  'cluster-cidr': z.array(z.string()).optional(),
  'detect-local-mode': z
    .enum(['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'])
    .optional(),
  'masquerade-all': z.boolean().optional(),
  /** Fields of KubeProxyConfiguration that have no flag, as they stand in a --config file. */
  file: z.record(z.string(), z.unknown()).optional(),
});

const clusterSchema = z.strictObject({
  'service-cidrs': z.array(z.string()).optional(),
  zone: z.string().nullable().optional(),
  'node-addresses': z.array(z.string()).optional(),
});

export type ProxySpec = z.infer<typeof proxySchema>;
export type ClusterSpec = z.infer<typeof clusterSchema>;

const rowSchema = z.strictObject({
  row: z.number(),
  title: z.string(),
  note: z.string().optional(),
  given: servicePatches.optional(),
  proxy: proxySchema.optional(),
  cluster: clusterSchema.optional(),
  'alder-addresses': z.array(z.string()).optional(),
  ...sendFields,
  steps: z.array(stepSchema).optional(),
  families: z.array(z.enum(['v4', 'v6'])).optional(),
  protocols: z.array(z.enum(transports)).optional(),
  /** Columns of the table to which the row applies. */
  modes: z.array(z.enum(['nft', 'ipt', 'auto', 'ipvs'])).optional(),
  /** Not together with other rows. */
  alone: z.boolean().optional(),
  'upstream-weak': z.boolean().optional(),
  exempt: z.string().optional(),
});

export type Row = z.infer<typeof rowSchema>;

const fileSchema = z.strictObject({
  section: z.string(),
  title: z.string(),
  baseline: z.record(z.string(), serviceSchema).default({}),
  proxy: proxySchema.optional(),
  protocols: z.array(z.enum(transports)).optional(),
  families: z.array(z.enum(['v4', 'v6'])).optional(),
  rows: z.array(rowSchema),
});

export interface Section {
  readonly letter: string;
  readonly title: string;
  readonly rows: readonly Row[];
}

/**
 * 'auto': no mode is configured, so nftables with the node ports of iptables. 'ipvs': mode ipvs of this program. Both are as
 * 'nft' where nothing else is said.
 */
export type Column = 'nft' | 'ipt' | 'auto' | 'ipvs';

/** What applies in a column. */
export function inColumn<T>(
  of: { readonly nft: T; readonly ipt: T; readonly auto?: T | undefined; readonly ipvs?: T | undefined },
  column: Column,
): T {
  return of[column] ?? of.nft;
}

/** One run of one row: in one family, over one protocol. All addresses and protocols in it are already translated. */
export interface Test {
  /** `17 v6 udp` */
  readonly id: string;
  /** The same, fit for the name of an object. */
  readonly slug: string;
  readonly section: string;
  readonly row: Row;
  readonly family: Family;
  readonly transport: TransportName;
  readonly services: ReadonlyMap<string, ServiceSpec>;
  readonly steps: readonly Step[];
  readonly proxy: ProxySpec;
  readonly cluster: ClusterSpec;
  readonly alderAddresses: readonly string[];
}

export class CaseFileError extends Error {
  readonly code = 'ERR_CONFORMANCE_CASE_FILE';
}

interface LoadedFile extends Section {
  readonly file: string;
  readonly baseline: Readonly<Record<string, ServiceSpec>>;
  readonly proxy: ProxySpec;
  readonly protocols: readonly TransportName[];
  readonly families: readonly Family[];
}

const caseFolder = fileURLToPath(new URL('../../../test/conformance/cases', import.meta.url));

export function loadSections(folder = caseFolder): readonly LoadedFile[] {
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith('.yaml'))
    .sort()
    .map((name) => {
      const parsed = fileSchema.safeParse(YAML.parse(fs.readFileSync(path.join(folder, name), 'utf8')));
      if (!parsed.success) {
        const problems = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
        throw new CaseFileError(
          `${name} does not follow the schema of the case files:\n${problems.join('\n')}`,
        );
      }
      const { section, title, baseline, proxy = {}, protocols, families, rows } = parsed.data;
      return {
        file: name,
        letter: section,
        title,
        baseline: Object.fromEntries(Object.entries(baseline).map(([name, spec]) => [name, withPort(spec)])),
        proxy,
        protocols: protocols ?? transports,
        families: families ?? ['v4', 'v6'],
        rows,
      };
    });
}

/** A service that does not say its port has 80/TCP, written out so that its UDP twin has 80/UDP. */
function withPort(spec: ServiceSpec): ServiceSpec {
  return spec.port === undefined && spec.ports === undefined ? { ...spec, port: '80/TCP' } : spec;
}

/** Applies overrides to the services of a case: fields are replaced, null removes. */
export function patchServices(
  services: ReadonlyMap<string, ServiceSpec>,
  patches: Readonly<Record<string, Readonly<Record<string, unknown>> | null>>,
): Map<string, ServiceSpec> {
  const result = new Map(services);
  for (const [name, patch] of Object.entries(patches)) {
    if (patch === null) {
      result.delete(name);
      continue;
    }
    const merged: Record<string, unknown> = { ...result.get(name), ...patch };
    // A list of slices and the short form of one slice are two ways to say the same thing.
    if ('eps' in patch) delete merged.slices;
    if ('slices' in patch) delete merged.eps;
    if ('ports' in patch) delete merged.port;
    if ('port' in patch) delete merged.ports;
    const kept = Object.entries(merged).filter(([key, value]) => value !== null || key === 'eps');
    const parsed = serviceSchema.safeParse(Object.fromEntries(kept));
    if (!parsed.success) throw new CaseFileError(`service ${name}: ${z.prettifyError(parsed.error)}`);
    result.set(name, withPort(parsed.data));
  }
  return result;
}

function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value);
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapStrings(item, change)]));
  }
  return value;
}

/** TCP becomes the other one, and that one TCP: rows about the wrong protocol stay rows about the wrong protocol. */
function swapProtocol(text: string, transport: TransportName): string {
  const other = transport.toUpperCase();
  return text.replace(/\b(?:TCP|UDP|SCTP)\b/g, (name) =>
    name === 'TCP' ? other : name === other ? 'TCP' : name,
  );
}

function translate<T>(value: T, family: Family, transport: TransportName): T {
  return mapStrings(value, (text) => {
    const swapped = swapProtocol(text, transport);
    return family === 'v6' ? translateText(swapped) : swapped;
  }) as T;
}

/** Both families of a list of CIDRs, so that the twins of a row share one configuration. */
function bothFamilies(cidrs: readonly string[]): readonly string[] {
  return [...new Set(cidrs.flatMap((cidr) => [cidr, toV6(cidr)]))];
}

function dualStack(spec: ProxySpec): ProxySpec {
  const result: ProxySpec = { ...spec };
  const nodePorts = spec['nodeport-addresses'];
  if (Array.isArray(nodePorts) && nodePorts[0] !== 'primary') {
    result['nodeport-addresses'] = [...bothFamilies(nodePorts)];
  }
  if (spec['cluster-cidr'] !== undefined) result['cluster-cidr'] = [...bothFamilies(spec['cluster-cidr'])];
  return result;
}

/** Rows about late slices and about events say nothing where objects come from a folder. */
export function needsApi(row: Row): boolean {
  return row.steps?.some((step) => step.api !== undefined || step.event !== undefined) ?? false;
}

/** The tests of a row, for the families and protocols in which it says something. */
export function testsOf(file: LoadedFile, row: Row): readonly Test[] {
  // A row that names its only family or protocol is written in it: nothing is translated.
  const ownFamilies = row.families ?? file.families;
  const ownTransports = row.protocols ?? file.protocols;
  const literalConfiguration = row.families?.length === 1;
  const tests: Test[] = [];
  for (const family of ownFamilies) {
    for (const transport of ownTransports) {
      const translateFamily: Family = ownFamilies.length === 1 ? 'v4' : family;
      const translateTransport: TransportName = ownTransports.length === 1 ? 'tcp' : transport;
      const services = patchServices(new Map(Object.entries(file.baseline)), row.given ?? {});
      const { send, expect, better, connections, share, as, within, get, method, answer } = row;
      const onlyStep = { send, expect, better, connections, share, as, within, get, method, answer };
      const steps = row.steps ?? [
        Object.fromEntries(Object.entries(onlyStep).filter(([, value]) => value !== undefined)),
      ];
      const proxy = { ...file.proxy, ...row.proxy };
      tests.push({
        id: `${row.row} ${family} ${transport}`,
        slug: `${row.row}-${family}-${transport}`,
        section: file.letter,
        row,
        family,
        transport,
        services: translateServices(services, translateFamily, translateTransport),
        steps: translate(steps, translateFamily, translateTransport),
        proxy: literalConfiguration ? proxy : dualStack(proxy),
        cluster: row.cluster ?? {},
        alderAddresses: translate(row['alder-addresses'] ?? [], translateFamily, translateTransport),
      });
    }
  }
  return tests;
}

function translateServices(
  services: ReadonlyMap<string, ServiceSpec>,
  family: Family,
  transport: TransportName,
): ReadonlyMap<string, ServiceSpec> {
  return new Map([...services].map(([name, spec]) => [name, translate(spec, family, transport)]));
}
