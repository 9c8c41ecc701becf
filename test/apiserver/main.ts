/** The double as a program: prints its URL as the first line of standard output, ends on SIGTERM. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { makeCertificates } from './certificates.js';
import { loadFiles } from './files.js';
import { generateCluster } from './generate.js';
import { ApiServer, type ProtobufSupport, type StreamingLists } from './server.js';

const usage = `usage: node dist/test/apiserver/main.js [options]
  --host ADDRESS          listen address (127.0.0.1)
  --port N                listen port; 0: any (0)
  --manifests PATH        objects to begin with: a YAML or JSON file, or a folder of them
  --services N            make up N services …
  --endpoints N           … with so many endpoints each (10)
  --nodes N               … on so many nodes (100)
  --streaming-lists WAY   on, refused, invalid or ignored (on); off means refused
  --protobuf WAY          on, off or refused (on)
  --tls FOLDER            serve https with HTTP/2; writes ca.crt, client.crt, client.key and kubeconfig there
  --http1                 with --tls: no HTTP/2
  --client-certificates   with --tls: accept clients with client.crt
  --token TOKEN           accept this bearer token; with neither of these two everybody is let in
  --bookmark-ms N         time between bookmarks (60000)
`;

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    manifests: { type: 'string' },
    services: { type: 'string', default: '0' },
    endpoints: { type: 'string', default: '10' },
    nodes: { type: 'string', default: '100' },
    'streaming-lists': { type: 'string', default: 'on' },
    protobuf: { type: 'string', default: 'on' },
    tls: { type: 'string' },
    http1: { type: 'boolean', default: false },
    'client-certificates': { type: 'boolean', default: false },
    token: { type: 'string', multiple: true },
    'bookmark-ms': { type: 'string', default: '60000' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(usage);
  process.exit(0);
}

function choice<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value);
  if (found !== undefined) return found;
  process.stderr.write(`--${name} must be ${allowed.join(', ')}, not ${value}\n`);
  process.exit(2);
}

const streaming = values['streaming-lists'] === 'off' ? 'refused' : values['streaming-lists'];
const certificates = values.tls === undefined ? undefined : makeCertificates();
const server = await ApiServer.start({
  host: values.host,
  port: Number(values.port),
  streamingLists: choice<StreamingLists>('streaming-lists', streaming, [
    'on',
    'refused',
    'invalid',
    'ignored',
  ]),
  protobuf: choice<ProtobufSupport>('protobuf', values.protobuf, ['on', 'off', 'refused']),
  bookmarkMs: Number(values['bookmark-ms']),
  clientCertificates: values['client-certificates'],
  // Without TLS HTTP/2 would be all that it speaks.
  ...(certificates === undefined ? {} : { tls: certificates, http2: !values.http1 }),
  ...(values.token === undefined ? {} : { tokens: values.token }),
});
if (values.manifests !== undefined) loadFiles(server.store, values.manifests);
if (Number(values.services) > 0) {
  generateCluster(server.store, {
    services: Number(values.services),
    endpoints: Number(values.endpoints),
    nodes: Number(values.nodes),
  });
}
if (values.tls !== undefined && certificates !== undefined) {
  mkdirSync(values.tls, { recursive: true });
  const file = (name: string, text: string): void => {
    writeFileSync(path.join(values.tls ?? '.', name), text, { mode: 0o600 });
  };
  file('ca.crt', certificates.authority);
  file('client.crt', certificates.clientCertificate);
  file('client.key', certificates.clientKey);
  const user =
    values.token?.[0] === undefined
      ? { 'client-certificate': 'client.crt', 'client-key': 'client.key' }
      : { token: values.token[0] };
  file(
    'kubeconfig',
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'double', cluster: { server: server.url, 'certificate-authority': 'ca.crt' } }],
      users: [{ name: 'kube-proxy', user }],
      contexts: [{ name: 'double', context: { cluster: 'double', user: 'kube-proxy' } }],
      'current-context': 'double',
    }),
  );
}
process.stdout.write(`${server.url}\n`);
const stop = (): void => {
  void server.close();
};
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
