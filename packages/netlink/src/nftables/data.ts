/**
 * Values and verdicts, as rules and elements carry them (linux/netfilter/nf_tables.h, enum nft_data_attributes):
 *
 *     VALUE(1)    bytes: register contents
 *     VERDICT(2)  nested
 *         CODE(1)   be32, enum nft_verdicts, or NF_DROP / NF_ACCEPT
 *         CHAIN(2)  string, for jump and goto
 */
import type { AttributeDecoder, AttributeWriter } from '../attribute.js';
import { readHostU32 } from '../endian.js';

export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;
export const NFTA_VERDICT_CODE = 1;
export const NFTA_VERDICT_CHAIN = 2;

/** What becomes of a packet (linux/netfilter/nf_tables.h, enum nft_verdicts, NF_ACCEPT, NF_DROP). */
export type Verdict =
  | { readonly verdict: 'accept' | 'drop' | 'continue' | 'break' | 'return' }
  | { readonly verdict: 'jump' | 'goto'; readonly chain: string };

/** Lets the packet pass this hook; chains of later priorities still see it. */
export const accept: Verdict = { verdict: 'accept' };
/** Drops the packet. */
export const drop: Verdict = { verdict: 'drop' };
/** Goes on with the next rule. */
export const continueRule: Verdict = { verdict: 'continue' };
/** Goes back to the chain that jumped here; in a base chain, to its policy. */
export const returnToCaller: Verdict = { verdict: 'return' };

/** Enters a chain that comes back here at its end. */
export function jumpTo(chain: string): Verdict {
  return { verdict: 'jump', chain };
}

/** Enters a chain that comes back where this chain would have. */
export function goTo(chain: string): Verdict {
  return { verdict: 'goto', chain };
}

/** NF_DROP, NF_ACCEPT (linux/netfilter.h) and enum nft_verdicts. */
const CODES: Readonly<Record<Verdict['verdict'], number>> = {
  drop: 0,
  accept: 1,
  continue: -1,
  break: -2,
  jump: -3,
  goto: -4,
  return: -5,
};

export function verdictCode(verdict: Verdict): number {
  return CODES[verdict.verdict];
}

/** Tells a verdict from register contents. */
export function isVerdict(data: Uint8Array | Verdict): data is Verdict {
  return 'verdict' in data;
}

export function encodeData(writer: AttributeWriter, type: number, data: Uint8Array | Verdict): void {
  const start = writer.openNest(type);
  if (isVerdict(data)) {
    const verdict = writer.openNest(NFTA_DATA_VERDICT);
    writer.u32(NFTA_VERDICT_CODE, verdictCode(data));
    if ('chain' in data) writer.string(NFTA_VERDICT_CHAIN, data.chain);
    writer.closeNest(verdict);
  } else {
    writer.data(NFTA_DATA_VALUE, data);
  }
  writer.closeNest(start);
}

function decodeVerdict(attributes: AttributeDecoder): Verdict | undefined {
  let code: number | undefined;
  let chain: string | undefined;
  while (attributes.next()) {
    if (attributes.type === NFTA_VERDICT_CODE) code = attributes.i32();
    else if (attributes.type === NFTA_VERDICT_CHAIN) chain = attributes.string();
  }
  switch (code) {
    case CODES.jump:
      return chain === undefined ? undefined : jumpTo(chain);
    case CODES.goto:
      return chain === undefined ? undefined : goTo(chain);
    case CODES.accept:
      return accept;
    case CODES.drop:
      return drop;
    case CODES.continue:
      return continueRule;
    case CODES.return:
      return returnToCaller;
    case CODES.break:
      return { verdict: 'break' };
    default:
      return undefined;
  }
}

/** The data inside the current attribute; values are views into the datagram. undefined: neither kind. */
export function decodeData(attribute: AttributeDecoder): Buffer | Verdict | undefined {
  const attributes = attribute.nested();
  while (attributes.next()) {
    if (attributes.type === NFTA_DATA_VALUE) return attributes.view();
    if (attributes.type === NFTA_DATA_VERDICT) return decodeVerdict(attributes.nested());
  }
  return undefined;
}

/** Like decodeData() where only a value makes sense; a copy. An absent value is a decoding error. */
export function decodeValue(attribute: AttributeDecoder): Buffer {
  const data = decodeData(attribute);
  if (data !== undefined && !isVerdict(data)) return Buffer.from(data);
  attribute.fail('a value is missing');
  return Buffer.alloc(0);
}

/** Register contents as nft's debug output prints them: words of 4 bytes, in the machine's order. */
export function describeValue(value: Uint8Array): string {
  const words: string[] = [];
  for (let start = 0; start < value.length; start += 4) {
    const word = Buffer.alloc(4);
    word.set(value.subarray(start, start + 4));
    words.push(`0x${readHostU32(word, 0).toString(16).padStart(8, '0')}`);
  }
  return words.join(' ');
}
