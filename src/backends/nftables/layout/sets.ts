/** The sets and maps of the table: what each is keyed by and holds. Their names are in names.ts. */
import { selectors, type Field, type SetDefinition } from '@kube-proxy-ts/netlink/nftables';
import type { IPFamily } from '../../../model/types.js';
import type { DataplaneOptions } from '../../backend.js';
import { packetFields } from '../../nft/rules.js';
import { maps, sets } from './names.js';

/** The fields of packets that keys are made of. */
export function fieldsOf(family: IPFamily) {
  const fields = packetFields(family);
  return {
    ...fields,
    /** What a DNAT takes. */
    target: [fields.daddr, selectors.thDport],
    // The modulus is only an example: nft prints the type of the map with it.
    slot: selectors.numgenRandom(2),
  };
}

/** Clients remembered by affinity, over all services; the kernel allocates as they come. */
const affinityClients = 1 << 20;

/** All sets and maps of the table of one family. */
export function setDefinitions(options: DataplaneOptions): SetDefinition[] {
  const f = fieldsOf(options.family);
  const map = (name: string, key: readonly Field[], value: readonly Field[] | 'verdict'): SetDefinition => ({
    name,
    key,
    value,
  });
  return [
    map(maps.serviceIPs, f.service, [f.priority]),
    map(maps.serviceNodePorts, f.nodePort, [f.priority]),
    map(maps.classes, [f.priority], 'verdict'),
    map(maps.pickClasses, [f.priority], 'verdict'),
    map(maps.endpoints, [...f.service, f.slot], f.target),
    map(maps.endpointsLocal, [...f.service, f.slot], f.target),
    map(maps.nodePortEndpoints, [...f.nodePort, f.slot], f.target),
    map(maps.nodePortEndpointsLocal, [...f.nodePort, f.slot], f.target),
    map(maps.shortCircuitIPs, f.service, [f.priority]),
    map(maps.shortCircuitNodePorts, f.nodePort, [f.priority]),
    map(maps.localIPs, f.service, [f.priority]),
    map(maps.localNodePorts, f.nodePort, [f.priority]),
    map(maps.affinityIPs, f.service, [f.priority]),
    map(maps.affinityNodePorts, f.nodePort, [f.priority]),
    {
      ...map(maps.affinity, [f.saddr, f.priority], [f.priority]),
      dynamic: true,
      timeout: true,
      size: affinityClients,
    },
    map(maps.affinitySlots, [f.priority, f.slot], [f.priority]),
    map(maps.affinitySlotsLocal, [f.priority, f.slot], [f.priority]),
    map(maps.affinityEndpoints, [f.priority], f.target),
    map(maps.affinityEndpointsLocal, [f.priority], f.target),
    { name: sets.clusterIPs, key: [f.daddr] },
    { name: sets.serviceCIDRs, key: [f.daddr], interval: true },
    { name: sets.firewallIPs, key: f.service },
    { name: sets.rejectedIPs, key: f.service },
    { name: sets.rejectedNodePorts, key: f.nodePort },
    { name: sets.droppedIPs, key: f.service },
    { name: sets.droppedNodePorts, key: f.nodePort },
    { name: sets.hairpin, key: [f.saddr, ...f.service] },
    { name: sets.nodePortIPs, key: [f.daddr] },
  ];
}
