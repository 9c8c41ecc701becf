/**
 * Why an address leads to a number and not to a chain: the price of one change in a verdict map and in a map of
 * numbers, both with an element per service. Run as root:
 *
 *     node dist/bench/verdict-map.js [elements]
 *
 * Prints one JSON object (VerdictMapResult).
 */
import {
  Batch,
  expr,
  goTo,
  jumpTo,
  loadFields,
  NftablesConnection,
  selectors,
  type Verdict,
} from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { percentile } from './percentile.js';

export interface VerdictMapResult {
  readonly elements: number;
  /** One element replaced by another, batch and acknowledgement, milliseconds; median. */
  readonly verdictMs: number;
  readonly numberMs: number;
}

const rounds = 100;
const table = 'verdict-map';
const key = [selectors.ipDaddr, selectors.l4proto, selectors.thDport];
const chains = ['even', 'odd'] as const;

function keyOf(service: number): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32BE(0x0a600000 + service, 0);
  bytes.writeUInt8(6, 4);
  bytes.writeUInt16BE(80, 8);
  return bytes;
}

function numberOf(round: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(0x10000 + (round % 2), 0);
  return bytes;
}

function verdictOf(round: number): Verdict {
  return goTo(round % 2 === 0 ? chains[0] : chains[1]);
}

function median(
  connection: NftablesConnection,
  elements: number,
  map: string,
  valueOf: (round: number) => Buffer | Verdict,
): number {
  const times: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    const bytes = keyOf(Math.floor((round * 7919) % elements));
    const start = performance.now();
    const batch = new Batch('ip', table);
    batch.deleteElement(map, bytes);
    batch.addElement(map, bytes, valueOf(round));
    connection.commit(batch);
    times.push(performance.now() - start);
  }
  return percentile(times, 0.5);
}

function main(elements: number): VerdictMapResult {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);
  const connection = NftablesConnection.open();
  const batch = new Batch('ip', table);
  batch.addTable();
  for (const chain of chains) batch.addChain(chain);
  batch.addSet({ name: 'verdicts', key, value: 'verdict' });
  batch.addSet({ name: 'numbers', key, value: [selectors.priority] });
  // Only what a base chain leads to is validated: once for each way that leads there, as in the real table.
  batch.addChain('services');
  batch.addRule('services', [...loadFields(key, 0), expr.lookup('numbers', 0, { dreg: 0 })]);
  batch.addRule('services', [...loadFields(key, 0), expr.lookup('verdicts', 0, { dreg: 'verdict' })]);
  for (const hook of ['prerouting', 'output'] as const) {
    batch.addChain(hook, { base: { type: 'nat', hook, priority: -100, policy: 'accept' } });
    batch.addRule(hook, [expr.verdict(jumpTo('services'))]);
  }
  for (let service = 0; service < elements; service++)
    batch.addElement('numbers', keyOf(service), numberOf(0));
  for (let service = 0; service < elements; service++)
    batch.addElement('verdicts', keyOf(service), verdictOf(0));
  connection.commit(batch);
  // Numbers first: the verdict map must not be warm in the caches only for one of the two.
  const numberMs = median(connection, elements, 'numbers', numberOf);
  const verdictMs = median(connection, elements, 'verdicts', verdictOf);
  connection.close();
  return { elements, verdictMs, numberMs };
}

const [elements = 50_000] = process.argv.slice(2).map(Number);
process.stdout.write(`${JSON.stringify(main(elements))}\n`);
process.exit();
