/** The entries of table filter: what they refuse, and how they are told from each other in a table that somebody else wrote. */
import type { Protocol, ServicePort } from '../../../model/types.js';
import type { DesiredEntry, TreeName } from './desired-rules.js';
import { addressKey, portKey } from './keys.js';
import { chainPrefixes, chains } from './names.js';
import type { SavedTable } from '../tool/saved.js';

/** An entry as it was found in the kernel. */
export interface FormerRejection {
  readonly tree: TreeName;
  readonly key: string;
  readonly rule: string;
}

/**
 * Whether an entry that is no longer wanted would refuse packets that were translated to an endpoint of the Service: one that
 * listens on this node at the very address or node port.
 */
export function meetsTranslated({ tree, key }: DesiredEntry, port: ServicePort): boolean {
  const { protocol } = port;
  return [port.clusterEndpoints, port.localEndpoints].some((endpoints) =>
    endpoints.some((endpoint) =>
      tree === 'refusedNodePorts'
        ? (endpoint.local || endpoint.nodeUnknown) && portKey(protocol, endpoint.port) === key
        : addressKey(endpoint.ip, protocol, endpoint.port) === key,
    ),
  );
}

const rulePattern =
  /^(?:-d (?<ip>[0-9a-f.:]+)\/(?:32|128) )?-p (?<protocol>tcp|udp|sctp) .*--dport (?<port>\d+) (?<node>-m addrtype --dst-type LOCAL )?-j (?:REJECT|DROP)/;

/** Every rule of ours, or of upstream's, that refuses packets to one address and port, or to a node port. */
export function* formerRejections(filter: SavedTable): Generator<FormerRejection> {
  for (const [chain, rules] of filter) {
    const tree = treeOf(chain);
    if (tree === undefined) continue;
    for (const rule of rules) {
      const { ip, protocol, port, node } = rulePattern.exec(rule)?.groups ?? {};
      if (protocol === undefined || port === undefined) continue;
      const of = protocol.toUpperCase() as Protocol;
      if (ip !== undefined && node === undefined) yield { tree, key: addressKey(ip, of, Number(port)), rule };
      if (ip === undefined && node !== undefined && tree === 'refusedExternal')
        yield { tree: 'refusedNodePorts', key: portKey(of, Number(port)), rule };
    }
  }
}

/** The tree whose rules a chain of table filter holds, 'refusedExternal' also where it is 'refusedNodePorts'. */
function treeOf(chain: string): TreeName | undefined {
  if (chain === chains.services || chain.startsWith(chainPrefixes.cluster)) return 'refused';
  if (chain === chains.externalServices || chain.startsWith(chainPrefixes.external)) return 'refusedExternal';
  if (chain === chains.proxyFirewall || chain.startsWith(chainPrefixes.firewall)) return 'firewall';
  return undefined;
}
