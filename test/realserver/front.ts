/** What may stand between kube-proxy and the API server: a load balancer's page, or a proxy that speaks HTTP/1.1 only. */
import https from 'node:https';
import type net from 'node:net';
import type { CertificateSet } from '../apiserver/certificates.js';
import { apiPort } from './control-plane.js';

export type Behaviour =
  /** The same for everybody. */
  | { readonly status: number }
  /** Hands requests on, as the same client, over HTTP/1.1 on both sides. */
  | 'hands on'
  /** Takes requests. */
  | 'keeps silent';

/** A server with the API server's certificate that has no HTTP/2. */
export class Front {
  private constructor(
    private readonly server: https.Server,
    readonly port: number,
  ) {}

  static async start(certificates: CertificateSet, behaviour: Behaviour): Promise<Front> {
    const { authority, serverCertificate, serverKey, clientCertificate, clientKey } = certificates;
    const server = https.createServer(
      { cert: serverCertificate, key: serverKey, ALPNProtocols: ['http/1.1'] },
      (request, response) => {
        if (behaviour === 'keeps silent') return;
        if (behaviour !== 'hands on') {
          response.writeHead(behaviour.status, { 'content-type': 'text/html' });
          response.end('<html><body>Please try again later</body></html>');
          return;
        }
        const onward = https.request(
          {
            host: '127.0.0.1',
            port: apiPort,
            ca: authority,
            cert: clientCertificate,
            key: clientKey,
            method: request.method,
            path: request.url,
            headers: request.headers,
          },
          (answer) => {
            response.writeHead(answer.statusCode ?? 502, answer.headers);
            answer.pipe(response);
            answer.on('error', () => response.destroy());
          },
        );
        onward.on('error', () => response.destroy());
        response.on('close', () => onward.destroy());
        request.pipe(onward);
      },
    );
    server.on('clientError', () => undefined);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Front(server, (server.address() as net.AddressInfo).port);
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) =>
      this.server.close(() => {
        resolve();
      }),
    );
    this.server.closeAllConnections();
    await closed;
  }
}
