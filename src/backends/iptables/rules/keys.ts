/** Keys of the prefix trees (tree.ts): addresses, protocols and ports as base-4 digits. */
import { formatAddress, parseAddress } from '@kube-proxy-ts/netlink';
import type { IPFamily, Protocol } from '../../../model/types.js';
import { maxChainName, shortHash } from './names.js';
import { sharedDigits, type KeySpace } from './tree.js';

const protocols: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
const portDigits = 8;

/** The four digits of every byte. */
const byteDigits = Array.from({ length: 256 }, (_, byte) => byte.toString(4).padStart(4, '0'));

function digitsOfAddress(ip: string): string {
  let digits = '';
  for (const byte of parseAddress(ip)) digits += byteDigits[byte] ?? '';
  return digits;
}

export function portKey(protocol: Protocol, port: number): string {
  return String(protocols.indexOf(protocol)) + port.toString(4).padStart(portDigits, '0');
}

export function addressKey(ip: string, protocol: Protocol, port: number): string {
  return digitsOfAddress(ip) + portKey(protocol, port);
}

export function sourceKey(ip: string): string {
  return digitsOfAddress(ip);
}

function addressOfDigits(digits: string, bytes: number): string {
  const buffer = Buffer.alloc(bytes);
  const padded = digits.padEnd(bytes * 4, '0');
  for (let i = 0; i < bytes; i++) buffer[i] = parseInt(padded.slice(i * 4, i * 4 + 4), 4);
  return formatAddress(buffer);
}

/** Length of the common prefix of two keys, in bits. */
function sharedBits(a: string, b: string): number {
  const digits = sharedDigits(a, b);
  const [left, right] = [a.charCodeAt(digits), b.charCodeAt(digits)];
  // Both differ in this digit; '0' and '1' ('2' and '3') still agree in its first bit.
  return 2 * digits + (digits < a.length && ((left ^ right) & 2) === 0 ? 1 : 0);
}

function protocolOf(digit: string): string {
  return (protocols[Number(digit)] ?? 'TCP').toLowerCase();
}

/** `-p tcp -m tcp --dport 80:95` for two keys of one protocol, given what follows the address in them. */
function portMatch(first: string, last: string): string {
  const protocol = protocolOf(first.charAt(0));
  const [low, high] = [parseInt(first.slice(1), 4), parseInt(last.slice(1), 4)];
  return `-p ${protocol} -m ${protocol} --dport ${low === high ? low : `${low}:${high}`}`;
}

function fitting(name: string, label: string, prefix: string): string {
  return name.length <= maxChainName ? name : label + shortHash(prefix);
}

/** Keys are addressKey() or sourceKey() of one family. Chains are named `LABEL10.96.0.0/14`. */
export class AddressKeys implements KeySpace {
  private readonly bytes: number;
  private readonly digits: number;

  constructor(
    family: IPFamily,
    private readonly label: string,
    private readonly side: '-d' | '-s' = '-d',
  ) {
    this.bytes = family === 'IPv4' ? 4 : 16;
    this.digits = this.bytes * 4;
  }

  chainName(prefix: string): string {
    const { label } = this;
    if (prefix.length > this.digits) return label + shortHash(prefix);
    // A colon would be read as the beginning of something else by people and by nft.
    const address = addressOfDigits(prefix, this.bytes).replaceAll(':', '-');
    return fitting(`${label}${address}/${prefix.length * 2}`, label, prefix);
  }

  match(first: string, last: string, known: number): string {
    const bits = sharedBits(first, last);
    const parts: string[] = [];
    if (known < this.digits) {
      const length = Math.min(bits, this.bytes * 8);
      parts.push(`${this.side} ${this.network(first, length)}/${length}`);
    }
    if (bits >= (this.digits + 1) * 2)
      parts.push(portMatch(first.slice(this.digits), last.slice(this.digits)));
    return parts.join(' ');
  }

  private network(key: string, length: number): string {
    const whole = length >> 1;
    const half = length % 2 === 1 && key.charCodeAt(whole) >= '2'.charCodeAt(0) ? '2' : '';
    return addressOfDigits(key.slice(0, whole) + half, this.bytes);
  }
}

/** Keys are portKey(). Chains are named `LABELtcp-30720/6`. */
export class PortKeys implements KeySpace {
  constructor(private readonly label: string) {}

  chainName(prefix: string): string {
    const { label } = this;
    const protocol = protocolOf(prefix.charAt(0));
    if (prefix.length === 1) return label + protocol;
    const port = parseInt(prefix.slice(1).padEnd(portDigits, '0'), 4);
    return fitting(`${label}${protocol}-${port}/${(prefix.length - 1) * 2}`, label, prefix);
  }

  match(first: string, last: string): string {
    return portMatch(first, last);
  }
}
