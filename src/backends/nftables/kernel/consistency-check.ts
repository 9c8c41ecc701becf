/**
 * The slow full check: does the kernel still hold what this process left there? A comparison of everything (adoption) would tell, too,
 * but takes two seconds at 50,000 Services, in which nothing else is programmed. So the check asks for elements by their keys, a
 * few milliseconds' worth at a time, and puts right what it finds in the same turn of the event loop: between two turns
 * changes are applied, and what is asked for next is what is wanted then.
 */
import type { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { ElementTable } from '../../nft/element-table.js';
import { noValue } from '../../nft/kernel-sets.js';
import { keyBytes, valueBytes } from '../state/element-bytes.js';
import type { DesiredElements } from '../state/desired-elements.js';
import { numberKey, slotKey, slotValue, type Element, type NumberedEndpoints } from '../state/elements.js';
import { targetBytes } from '../../nft/keys.js';
import { maps, sets } from '../layout/names.js';
import type { TouchedElements } from '../../engine/table-watch.js';
import type { Transaction } from '../transaction/transaction.js';

/** Elements that one turn asks for: 2 to 4 ms. */
const turnElements = 1000;

/** Sets whose elements are not those of service ports: the kernel fills one, the others are compared with the layout. */
const notByService = new Set<string>([
  maps.affinity,
  maps.classes,
  maps.pickClasses,
  sets.serviceCIDRs,
  sets.nodePortIPs,
]);

export function isByService(set: string): boolean {
  return !notByService.has(set);
}

/** All elements that a service port alone wants. */
export function* elementsOf({
  elements,
  blocks,
  numbered,
}: DesiredElements): Generator<Element, void, undefined> {
  yield* elements;
  for (const block of blocks) {
    for (const slot of block.slots.keys()) {
      const key = slotKey(block.prefix, slot);
      yield { set: block.set, key, value: slotValue(block, slot), comment: undefined };
    }
  }
  for (const list of numbered) yield* numberedElements(list);
}

export function* numberedElements(list: NumberedEndpoints): Generator<Element, void, undefined> {
  for (const [at, endpoint] of list.endpoints.entries())
    yield {
      set: list.set,
      key: numberKey(list, at),
      value: targetBytes(endpoint),
      comment: undefined,
    };
}

/** What should be there, until a turn's worth has come together and the kernel is asked. */
export class Expected {
  private readonly bySet = new Map<string, Element[]>();
  private count = 0;

  constructor(
    private readonly connection: NftablesConnection,
    private readonly family: 'ip' | 'ip6',
    private readonly table: string,
    /** Elements found by dumps: what is expected is taken off. */
    private readonly dumped: ReadonlyMap<string, ElementTable>,
  ) {}

  add(element: Element): void {
    const { set, key } = element;
    const list = this.bySet.get(set);
    if (list === undefined) this.bySet.set(set, [element]);
    else list.push(element);
    this.count++;
    const table = this.dumped.get(set);
    const record = table?.find(keyBytes(key)) ?? -1;
    if (record >= 0) table?.take(record);
  }

  get isFull(): boolean {
    return this.count >= turnElements;
  }

  /** Asks the kernel, and puts into the transaction what makes it right. */
  settle(tx: Transaction): void {
    for (const [set, elements] of this.bySet) {
      const found = new ElementTable();
      const keys = elements.map(({ key }) => Buffer.from(key, 'latin1'));
      this.connection.getElements(this.family, this.table, set, keys, (key, value, { comment }) => {
        found.set(key, Buffer.isBuffer(value) ? value : noValue, comment);
      });
      for (const element of elements) {
        const record = found.find(keyBytes(element.key));
        if (record < 0) {
          tx.add(element);
          continue;
        }
        const value = element.value === undefined ? noValue : valueBytes(element.value);
        if (!found.hasValue(record, value) || !found.hasComment(record, element.comment))
          tx.replace(set, element.key, element.value, element.comment);
      }
    }
    this.bySet.clear();
    this.count = 0;
  }
}

/**
 * The elements of a set. Each datagram is a turn of the event loop, in which others may change rules: what comes or goes meanwhile may be
 * missing. So what is found too many is asked for again before it is deleted.
 * @param connection nobody else's meanwhile
 */
export async function dump(
  connection: NftablesConnection,
  family: 'ip' | 'ip6',
  tableName: string,
  set: string,
): Promise<ElementTable> {
  const table = new ElementTable();
  await connection.listElementsAsync(
    family,
    tableName,
    set,
    (key, value, { comment }) => {
      table.set(key, Buffer.isBuffer(value) ? value : noValue, comment);
    },
    { inconsistent: true },
  );
  return table;
}

/** What nobody has taken off the dumps, in portions that one turn can deal with. */
export function* unexpected(
  dumped: ReadonlyMap<string, ElementTable>,
): Generator<TouchedElements, void, undefined> {
  for (const [set, table] of dumped) {
    let keys = new Set<string>();
    for (const record of table.rest()) {
      keys.add(table.key(record).toString('latin1'));
      if (keys.size < turnElements) continue;
      yield new Map([[set, keys]]);
      keys = new Set();
    }
    if (keys.size > 0) yield new Map([[set, keys]]);
  }
}
