/** A TCP relay in front of a server, to fail as networks fail: without a word. */
import net from 'node:net';

export class Relay {
  private readonly server: net.Server;
  private readonly sockets = new Set<net.Socket>();
  private frozen = false;
  /** Connections of earlier generations are lost. */
  private generation = 0;
  connections = 0;
  /** From the server to its clients. */
  bytesDown = 0;
  /** When bytes went through last, performance.now(). */
  lastBytesAt = 0;
  private targetPort: number;

  static async start(targetPort: number): Promise<Relay> {
    const relay = new Relay(targetPort);
    await new Promise<void>((resolve) => relay.server.listen(0, '127.0.0.1', resolve));
    return relay;
  }

  private constructor(targetPort: number) {
    this.targetPort = targetPort;
    this.server = net.createServer((client) => {
      this.connections++;
      const generation = this.generation;
      const isDead = (): boolean => this.frozen || generation !== this.generation;
      const upstream = net.connect(this.targetPort, '127.0.0.1');
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        this.sockets.add(from);
        from.on('data', (chunk) => {
          this.lastBytesAt = performance.now();
          if (from === upstream) this.bytesDown += chunk.length;
          // Bytes of a frozen connection are lost, as are those of later ones while it lasts.
          if (!isDead()) to.write(chunk);
        });
        from.on('error', () => undefined);
        from.once('close', () => {
          this.sockets.delete(from);
          if (!isDead()) to.destroy();
        });
      }
    });
  }

  get port(): number {
    return (this.server.address() as net.AddressInfo).port;
  }

  /** As a load balancer that chooses another server: connections are cut, new ones lead there. */
  retarget(port: number): void {
    this.targetPort = port;
    for (const socket of this.sockets) socket.destroy();
  }

  /** Swallow all bytes in both directions; connections stay open. */
  freeze(on: boolean): void {
    this.frozen = on;
  }

  /** What is open now is dead without a word, and stays so; new connections work. */
  loseConnections(): void {
    this.generation++;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => {
        resolve();
      });
    });
    for (const socket of this.sockets) socket.destroy();
    await closed;
  }
}
