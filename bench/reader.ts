/**
 * The floor under a cold start: reads the lists that kube-proxy reads, as it reads them, and does nothing with them. A process of
 * its own, so that its start counts, too.
 *
 *     node dist/bench/reader.js URL
 *
 * Ends with status 0 when the initial events of all lists are there; prints how many bytes they were, decompressed.
 */
import { get } from 'node:http';
import { createGunzip } from 'node:zlib';

const lists = [
  '/api/v1/services',
  '/apis/discovery.k8s.io/v1/endpointslices',
  '/api/v1/nodes',
  '/apis/networking.k8s.io/v1/servicecidrs',
];
/** Annotation of the bookmark that ends the initial events. */
const end = Buffer.from('k8s.io/initial-events-end');
const query =
  'watch=1&allowWatchBookmarks=true&timeoutSeconds=300&sendInitialEvents=true&resourceVersionMatch=NotOlderThan';

async function read(server: string, path: string): Promise<number> {
  return await new Promise((resolve, reject) => {
    const headers = { accept: 'application/vnd.kubernetes.protobuf;stream=watch', 'accept-encoding': 'gzip' };
    const request = get(`${server}${path}?${query}`, { headers }, (response) => {
      if (response.statusCode !== 200) reject(new Error(`${path}: status ${String(response.statusCode)}`));
      let bytes = 0;
      let rest = Buffer.alloc(0);
      const compressed = response.headers['content-encoding'] === 'gzip';
      const body = compressed ? response.pipe(createGunzip()) : response;
      body.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        // The mark may be in two chunks.
        if (chunk.includes(end) || Buffer.concat([rest, chunk.subarray(0, end.length)]).includes(end)) {
          resolve(bytes);
          request.destroy();
        }
        rest = Buffer.from(chunk.subarray(-end.length));
      });
    });
    request.on('error', reject);
  });
}

const [server = ''] = process.argv.slice(2);
const bytes = await Promise.all(lists.map((path) => read(server, path)));
process.stdout.write(`${bytes.reduce((sum, one) => sum + one, 0)}\n`);
process.exit();
