/**
 * EndpointSlice (k8s.io/api/discovery/v1/generated.proto):
 *
 *     EndpointSlice:  1 metadata   2 endpoints*   3 ports*   4 addressType
 *     Endpoint:       1 addresses*   2 conditions   6 nodeName   8 hints
 *     conditions:     1 ready   2 serving   3 terminating          absent is not false
 *     hints:          1 forZones*: 1 name   2 forNodes*: 1 name
 *     EndpointPort:   1 name   2 protocol   3 port                 absent is not ''
 */
import { appended, emptyList } from '../decoded.js';
import type { EndpointSlice, EndpointSlicePort, Protocol, SliceEndpoint } from '../../../objects.js';
import { readMetadata, type Metadata } from './metadata.js';
import { readProtocol } from './service.js';
import type { ProtoReader } from './wire.js';

/** The reader spans one EndpointSlice message. */
export function readEndpointSlice(reader: ProtoReader, meta: Metadata): EndpointSlice {
  meta.clear();
  let addressType = '';
  let endpoints: SliceEndpoint[] | undefined;
  let ports: readonly EndpointSlicePort[] = emptyList;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    switch (field) {
      case 1:
        readMetadata(reader, meta);
        break;
      case 2:
        (endpoints ??= []).push(readEndpoint(reader));
        break;
      case 3:
        ports = appended(ports, readPort(reader));
        break;
      case 4:
        addressType = reader.shared();
        break;
      default:
        reader.skip();
    }
  }
  return {
    namespace: meta.namespace,
    name: meta.name,
    serviceName: meta.serviceName,
    headless: meta.headless,
    addressType,
    ports,
    // Copied into an array of the exact size, see appended().
    endpoints: endpoints?.slice() ?? emptyList,
    triggerTime: meta.triggerTime,
  };
}

function readEndpoint(reader: ProtoReader): SliceEndpoint {
  const outer = reader.open();
  let address: string | undefined;
  let ready = true;
  let serving = true;
  let terminating = false;
  let nodeName: string | undefined;
  let zoneHints: readonly string[] = emptyList;
  let nodeHints: readonly string[] = emptyList;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    switch (field) {
      case 1:
        if (address === undefined) address = reader.text();
        else reader.skip();
        break;
      case 2: {
        const inner = reader.open();
        for (let field = reader.next(); field !== 0; field = reader.next()) {
          if (field === 1) ready = reader.boolean();
          else if (field === 2) serving = reader.boolean();
          else if (field === 3) terminating = reader.boolean();
          else reader.skip();
        }
        reader.close(inner);
        break;
      }
      case 6:
        nodeName = reader.shared();
        break;
      case 8: {
        const inner = reader.open();
        for (let field = reader.next(); field !== 0; field = reader.next()) {
          if (field === 1) zoneHints = addName(reader, zoneHints);
          else if (field === 2) nodeHints = addName(reader, nodeHints);
          else reader.skip();
        }
        reader.close(inner);
        break;
      }
      default:
        reader.skip();
    }
  }
  reader.close(outer);
  return { address: address ?? '', ready, serving, terminating, nodeName, zoneHints, nodeHints };
}

/** The list with the name of the ForZone or ForNode that the reader stands on. */
function addName(reader: ProtoReader, names: readonly string[]): readonly string[] {
  let name = '';
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) name = reader.shared();
    else reader.skip();
  }
  reader.close(outer);
  return appended(names, name);
}

function readPort(reader: ProtoReader): EndpointSlicePort {
  const outer = reader.open();
  let name: string | undefined;
  let protocol: Protocol = 'TCP';
  let port = 0;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    switch (field) {
      case 1:
        name = reader.shared();
        break;
      case 2:
        protocol = readProtocol(reader);
        break;
      case 3:
        port = reader.integer();
        break;
      default:
        reader.skip();
    }
  }
  reader.close(outer);
  return { name, protocol, port };
}
