/**
 * A process that begins flow after flow: udp datagrams from ever new addresses and ports, by a raw socket, tens of thousands a
 * second. Runs in the network namespace that it is started in until its standard input ends. Prints how many it has
 * sent, now and then and at the end, a number a line.
 *
 *     node sender.js '{"targets": [{"address": "10.177.0.50", "port": 80}], "sources": ["198.51.100", "10.61.9"]}'
 */
import { libc, numbers, socketAddress, SystemCallError, addressBytes } from '../conformance/libc.js';

export interface SenderTask {
  readonly targets: readonly { readonly address: string; readonly port: number }[];
  /** The first three bytes of addresses, or whole ones. */
  readonly sources: readonly string[];
}

/** <netinet/in.h>: the IP header is ours. */
const IPPROTO_RAW = 255;
const udp = 17;
const headerBytes = 28;
const perTurn = 256;
const firstPort = 1024;
const ports = 64_000;

/** What a full queue says: the next one may fit. */
const passing = new Set([
  11 /* EAGAIN */, 105 /* ENOBUFS */, 1 /* EPERM: dropped by a rule of this namespace */,
]);

function packetTo(address: string, port: number): Buffer {
  const packet = Buffer.alloc(headerBytes);
  packet[0] = 0x45;
  packet.writeUInt16BE(headerBytes, 2);
  packet[8] = 64;
  packet[9] = udp;
  addressBytes(address).copy(packet, 16);
  packet.writeUInt16BE(port, 22);
  packet.writeUInt16BE(8, 24);
  return packet;
}

function run({ targets, sources }: SenderTask): void {
  const fd = libc.socket(numbers.AF_INET, numbers.SOCK_RAW, IPPROTO_RAW);
  const prepared = targets.map(({ address, port }) => ({
    packet: packetTo(address, port),
    to: socketAddress({ address, port: 0 }),
  }));
  const hosts = sources.flatMap((source) =>
    source.split('.').length === 4
      ? [addressBytes(source)]
      : Array.from({ length: 250 }, (_, host) => addressBytes(`${source}.${host + 1}`)),
  );
  let sent = 0;
  let at = 0;
  let ended = false;
  const turn = (): void => {
    for (let i = 0; i < perTurn; i++, at++) {
      const target = prepared[at % prepared.length];
      const round = Math.floor(at / prepared.length);
      const host = hosts[round % hosts.length];
      if (target === undefined || host === undefined)
        throw new Error('nobody to send to, or nobody who sends');
      host.copy(target.packet, 12);
      target.packet.writeUInt16BE(firstPort + (Math.floor(round / hosts.length) % ports), 20);
      try {
        libc.sendTo(fd, target.packet, target.to);
        sent++;
      } catch (error) {
        if (!(error instanceof SystemCallError && passing.has(error.errno))) throw error;
      }
    }
    if (ended) process.stdout.write(`${sent}\n`, () => process.exit(0));
    else setImmediate(turn);
  };
  setInterval(() => process.stdout.write(`${sent}\n`), 100);
  process.stdin.on('end', () => {
    ended = true;
  });
  process.stdin.resume();
  turn();
}

run(JSON.parse(process.argv[2] ?? '') as SenderTask);
