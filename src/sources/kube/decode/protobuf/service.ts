/**
 * Service (k8s.io/api/core/v1/generated.proto):
 *
 *     Service:        1 metadata   2 spec   3 status
 *     ServiceSpec:    1 ports*   3 clusterIP   4 type   5 externalIPs*   7 sessionAffinity
 *                     9 loadBalancerSourceRanges*   11 externalTrafficPolicy   12 healthCheckNodePort
 *                     14 sessionAffinityConfig   18 clusterIPs*   19 ipFamilies*   22 internalTrafficPolicy
 *     ServicePort:    1 name   2 protocol   3 port   5 nodePort
 *     sessionAffinityConfig: 1 clientIP: 1 timeoutSeconds
 *     ServiceStatus:  1 loadBalancer: 1 ingress*: 1 ip   3 ipMode
 */
import { appended, emptyList } from '../decoded.js';
import type { LoadBalancerIngress, Protocol, Service, ServicePortSpec } from '../../../objects.js';
import { readMetadata, timeToText, type Metadata } from './metadata.js';
import type { ProtoReader } from './wire.js';

/** The reader spans one Service message. */
export function readService(reader: ProtoReader, meta: Metadata): Service {
  meta.clear();
  let type = '';
  let clusterIP = '';
  let clusterIPs: readonly string[] = emptyList;
  let ipFamilies: readonly string[] = emptyList;
  let ports: readonly ServicePortSpec[] = emptyList;
  let externalIPs: readonly string[] = emptyList;
  let sourceRanges: readonly string[] = emptyList;
  let ingress: readonly LoadBalancerIngress[] = emptyList;
  let sessionAffinity = '';
  let affinityTimeoutSeconds: number | undefined;
  let internalTrafficPolicy = '';
  let externalTrafficPolicy = '';
  let healthCheckNodePort = 0;

  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      readMetadata(reader, meta);
    } else if (field === 2) {
      const outer = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        switch (field) {
          case 1:
            ports = appended(ports, readPort(reader));
            break;
          case 3:
            // Of one Service, clusterIP and clusterIPs[0] are the same string.
            clusterIP = reader.shared();
            break;
          case 4:
            type = reader.shared();
            break;
          case 5:
            externalIPs = appended(externalIPs, reader.shared());
            break;
          case 7:
            sessionAffinity = reader.shared();
            break;
          case 9:
            sourceRanges = appended(sourceRanges, reader.shared());
            break;
          case 11:
            externalTrafficPolicy = reader.shared();
            break;
          case 12:
            healthCheckNodePort = reader.integer();
            break;
          case 14:
            affinityTimeoutSeconds = readAffinityTimeout(reader);
            break;
          case 18:
            clusterIPs = appended(clusterIPs, reader.shared());
            break;
          case 19:
            ipFamilies = appended(ipFamilies, reader.shared());
            break;
          case 22:
            internalTrafficPolicy = reader.shared();
            break;
          default:
            reader.skip();
        }
      }
      reader.close(outer);
    } else if (field === 3) {
      ingress = readStatus(reader);
    } else {
      reader.skip();
    }
  }
  return {
    namespace: meta.namespace,
    name: meta.name,
    uid: meta.uid,
    creationTimestamp: timeToText(meta.createdSeconds, reader.strings),
    serviceProxyName: meta.serviceProxyName,
    type,
    clusterIP,
    clusterIPs,
    ipFamilies,
    ports,
    externalIPs,
    loadBalancerIngress: ingress,
    loadBalancerSourceRanges: sourceRanges,
    sessionAffinity,
    affinityTimeoutSeconds,
    internalTrafficPolicy,
    externalTrafficPolicy,
    healthCheckNodePort,
  };
}

function readPort(reader: ProtoReader): ServicePortSpec {
  const outer = reader.open();
  let name = '';
  let protocol: Protocol = 'TCP';
  let port = 0;
  let nodePort = 0;
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
      case 5:
        nodePort = reader.integer();
        break;
      default:
        reader.skip();
    }
  }
  reader.close(outer);
  return { name, protocol, port, nodePort };
}

/** A protocol field; empty means TCP, as the API server defaults it. */
export function readProtocol(reader: ProtoReader): Protocol {
  const text = reader.shared();
  if (text === 'TCP' || text === 'UDP' || text === 'SCTP') return text;
  if (text === '') return 'TCP';
  return reader.fail(`unknown protocol ${JSON.stringify(text)}`);
}

function readAffinityTimeout(reader: ProtoReader): number | undefined {
  let seconds: number | undefined;
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      const inner = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 1) seconds = reader.integer();
        else reader.skip();
      }
      reader.close(inner);
    } else {
      reader.skip();
    }
  }
  reader.close(outer);
  return seconds;
}

function readStatus(reader: ProtoReader): readonly LoadBalancerIngress[] {
  let ingress: readonly LoadBalancerIngress[] = emptyList;
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      const inner = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 1) ingress = appended(ingress, readIngress(reader));
        else reader.skip();
      }
      reader.close(inner);
    } else {
      reader.skip();
    }
  }
  reader.close(outer);
  return ingress;
}

function readIngress(reader: ProtoReader): LoadBalancerIngress {
  const outer = reader.open();
  let ip = '';
  let ipMode = '';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) ip = reader.text();
    else if (field === 3) ipMode = reader.shared();
    else reader.skip();
  }
  reader.close(outer);
  return { ip, ipMode };
}
