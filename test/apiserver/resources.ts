/** The kinds that the double serves. */

export interface ServedKind {
  readonly kind: string;
  /** '' for the core group. */
  readonly group: string;
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly namespaced: boolean;
}

export const servedKinds: readonly ServedKind[] = [
  {
    kind: 'Service',
    group: '',
    plural: 'services',
    singular: 'service',
    shortNames: ['svc'],
    namespaced: true,
  },
  { kind: 'Node', group: '', plural: 'nodes', singular: 'node', shortNames: ['no'], namespaced: false },
  {
    kind: 'EndpointSlice',
    group: 'discovery.k8s.io',
    plural: 'endpointslices',
    singular: 'endpointslice',
    shortNames: [],
    namespaced: true,
  },
  {
    kind: 'ServiceCIDR',
    group: 'networking.k8s.io',
    plural: 'servicecidrs',
    singular: 'servicecidr',
    shortNames: [],
    namespaced: false,
  },
];

export function apiVersionOf(kind: ServedKind): string {
  return kind.group === '' ? 'v1' : `${kind.group}/v1`;
}

export interface Target {
  readonly kind: ServedKind;
  /** '' for all. */
  readonly namespace: string;
  /** '' for the collection. */
  readonly name: string;
}

/** What a path names: a collection, a namespace's part of it, or one object. */
export function targetOf(pathname: string): Target | undefined {
  const parts = pathname.split('/').filter((part) => part !== '');
  const isCore = parts[0] === 'api' && parts[1] === 'v1';
  const isGroup = parts[0] === 'apis' && parts[2] === 'v1';
  if (!isCore && !isGroup) return undefined;
  const group = isCore ? '' : (parts[1] ?? '');
  let rest = parts.slice(isCore ? 2 : 3);
  let namespace = '';
  if (rest[0] === 'namespaces' && rest.length > 2) {
    namespace = rest[1] ?? '';
    rest = rest.slice(2);
  }
  const kind = servedKinds.find((served) => served.group === group && served.plural === rest[0]);
  if (kind === undefined || rest.length > 2) return undefined;
  return { kind, namespace, name: rest[1] ?? '' };
}

/** Discovery documents: kubectl needs them to know what 'services' is. */
export function discovery(pathname: string): unknown {
  if (pathname === '/version') {
    return { major: '1', minor: '37', gitVersion: 'v1.37.2', platform: 'linux/amd64' };
  }
  if (pathname === '/api') return { kind: 'APIVersions', versions: ['v1'] };
  const groups = [...new Set(servedKinds.map((served) => served.group))].filter((group) => group !== '');
  if (pathname === '/apis') {
    return {
      kind: 'APIGroupList',
      apiVersion: 'v1',
      groups: groups.map((name) => ({
        name,
        versions: [{ groupVersion: `${name}/v1`, version: 'v1' }],
        preferredVersion: { groupVersion: `${name}/v1`, version: 'v1' },
      })),
    };
  }
  const group = pathname === '/api/v1' ? '' : groups.find((name) => pathname === `/apis/${name}/v1`);
  if (group === undefined) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: group === '' ? 'v1' : `${group}/v1`,
    resources: servedKinds
      .filter((served) => served.group === group)
      .map((served) => ({
        name: served.plural,
        singularName: served.singular,
        namespaced: served.namespaced,
        kind: served.kind,
        shortNames: served.shortNames,
        verbs: ['create', 'delete', 'get', 'list', 'update', 'watch'],
      })),
  };
}
