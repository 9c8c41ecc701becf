/**
 * Node (k8s.io/api/core/v1/generated.proto):
 *
 *     Node:        1 metadata   2 spec   3 status
 *     NodeSpec:    1 podCIDR   5 taints*: 1 key   7 podCIDRs*
 *     NodeStatus:  5 addresses*: 1 type   2 address
 */
import { appended, emptyList } from '../decoded.js';
import type { Node, NodeAddress } from '../../../objects.js';
import { readMetadata, type Metadata } from './metadata.js';
import type { ProtoReader } from './wire.js';

/** The reader spans one Node message. */
export function readNode(reader: ProtoReader, meta: Metadata): Node {
  meta.clear();
  let podCIDR = '';
  let podCIDRs: readonly string[] = emptyList;
  let taintKeys: readonly string[] = emptyList;
  let addresses: readonly NodeAddress[] = emptyList;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      readMetadata(reader, meta);
    } else if (field === 2) {
      const outer = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 1) podCIDR = reader.text();
        else if (field === 5) taintKeys = appended(taintKeys, readTaintKey(reader));
        else if (field === 7) podCIDRs = appended(podCIDRs, reader.text());
        else reader.skip();
      }
      reader.close(outer);
    } else if (field === 3) {
      const outer = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 5) addresses = appended(addresses, readAddress(reader));
        else reader.skip();
      }
      reader.close(outer);
    } else {
      reader.skip();
    }
  }
  return {
    name: meta.name,
    uid: meta.uid,
    addresses,
    podCIDRs: podCIDRs.length > 0 || podCIDR === '' ? podCIDRs : [podCIDR],
    zone: meta.zone,
    taintKeys,
    deleting: meta.deleting,
  };
}

function readTaintKey(reader: ProtoReader): string {
  const outer = reader.open();
  let key = '';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) key = reader.shared();
    else reader.skip();
  }
  reader.close(outer);
  return key;
}

function readAddress(reader: ProtoReader): NodeAddress {
  const outer = reader.open();
  let type = '';
  let address = '';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) type = reader.shared();
    else if (field === 2) address = reader.shared();
    else reader.skip();
  }
  reader.close(outer);
  return { type, address };
}
