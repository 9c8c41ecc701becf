/** A TCP relay in front of a server, to fail as networks fail: without a word. */
import net from 'node:net';

export class Relay {
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #frozen = false;
  connections = 0;

  static async start(targetPort: number): Promise<Relay> {
    const relay = new Relay(targetPort);
    await new Promise<void>((resolve) => relay.#server.listen(0, '127.0.0.1', resolve));
    return relay;
  }

  private constructor(targetPort: number) {
    this.#server = net.createServer((client) => {
      this.connections++;
      const upstream = net.connect(targetPort, '127.0.0.1');
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        this.#sockets.add(from);
        from.on('data', (chunk) => {
          // Bytes of a frozen connection are lost, as are those of later ones while it lasts.
          if (!this.#frozen) to.write(chunk);
        });
        from.on('error', () => undefined);
        from.once('close', () => {
          this.#sockets.delete(from);
          if (!this.#frozen) to.destroy();
        });
      }
    });
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  /** Swallow all bytes in both directions; connections stay open. */
  freeze(on: boolean): void {
    this.#frozen = on;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
