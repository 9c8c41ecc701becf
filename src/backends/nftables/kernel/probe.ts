/**
 * Whether the kernel has all of nf_tables that our rules need: sets with several fields, numgen, dynset, fib, nat, masq,
 * reject, ct … Each may be a module that is not there. The whole layout is put to the kernel in a transaction that can't
 * succeed, since it ends with a chain to delete that does not exist: the kernel checks, and loads modules for,
 * everything before, and changes nothing.
 */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { Batch, type NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import { nftFamily } from '../../nft/rules.js';
import { sourceRangeSetDefinition } from '../../nft/source-range-rules.js';
import { className, type ServiceClass } from '../layout/classes.js';
import { baseObjects, classRules } from '../layout/layout.js';

const probeTable = 'kube-proxy-probe';

/** Of a source range, in bits. */
const rangeLength = 24;

const classes: readonly ServiceClass[] = [
  { kind: 'cluster', endpoints: 2, affinitySeconds: 0 },
  { kind: 'cluster', endpoints: 2, affinitySeconds: 10_800 },
  { kind: 'nodeport', endpoints: 2, affinitySeconds: 0 },
];

/** @returns what the kernel refuses; undefined: nothing */
export function probeNftables(
  connection: NftablesConnection,
  options: DataplaneOptions,
): NetlinkError | undefined {
  const batch = new Batch(nftFamily(options.family), probeTable);
  const base = baseObjects(options, [rangeLength]);
  batch.addTable();
  for (const set of base.sets) batch.addSet(set);
  batch.addSet(sourceRangeSetDefinition(options.family, rangeLength));
  for (const chain of base.chains)
    batch.addChain(chain.name, chain.base === undefined ? {} : { base: chain.base });
  for (const of of classes) batch.addChain(className(of));
  for (const { name, rules } of base.chains)
    for (const { expressions } of rules) batch.addRule(name, expressions);
  for (const of of classes)
    for (const { expressions } of classRules(options, of)) batch.addRule(className(of), expressions);
  const last = batch.messageCount;
  batch.deleteChain('not-there');
  try {
    connection.commit(batch);
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    return error.messageIndex === last && error.code === 'ENOENT' ? undefined : error;
  }
  throw new Error('the kernel has deleted a chain that does not exist');
}
