/** Certificates for tests, made by openssl on the spot: none that expire lie in the repository. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** PEM texts. */
export interface CertificateSet {
  readonly authority: string;
  readonly serverKey: string;
  readonly serverCertificate: string;
  /** Of user system:kube-proxy. */
  readonly clientKey: string;
  readonly clientCertificate: string;
}

export interface CertificateWishes {
  /** subjectAltName of the server; 'IP:127.0.0.1,DNS:localhost' when absent. */
  readonly names?: string;
  /** The server's certificate ran out yesterday. */
  readonly expired?: boolean;
}

/** @throws Error when there is no openssl */
export function makeCertificates(wishes: CertificateWishes = {}): CertificateSet {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'certificates-'));
  const file = (name: string): string => path.join(folder, name);
  const openssl = (...options: string[]): void => {
    execFileSync('openssl', options, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 20_000 });
  };
  try {
    const key = (name: string): void => {
      openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', file(name));
    };
    key('ca.key');
    openssl(
      ...['req', '-x509', '-new', '-key', file('ca.key'), '-subj', '/CN=test-ca', '-days', '2'],
      ...['-addext', 'basicConstraints=critical,CA:TRUE', '-out', file('ca.crt')],
    );
    const sign = (name: string, subject: string, extensions: string, days: string): void => {
      key(`${name}.key`);
      openssl('req', '-new', '-key', file(`${name}.key`), '-subj', subject, '-out', file(`${name}.csr`));
      writeFileSync(file(`${name}.ext`), extensions);
      openssl(
        ...['x509', '-req', '-in', file(`${name}.csr`), '-CA', file('ca.crt'), '-CAkey', file('ca.key')],
        ...['-CAcreateserial', '-days', days, '-extfile', file(`${name}.ext`), '-out', file(`${name}.crt`)],
      );
    };
    sign(
      'server',
      '/CN=kube-apiserver',
      `subjectAltName=${wishes.names ?? 'IP:127.0.0.1,DNS:localhost'}\nextendedKeyUsage=serverAuth\n`,
      wishes.expired === true ? '-1' : '2',
    );
    sign('client', '/O=system:node-proxier/CN=system:kube-proxy', 'extendedKeyUsage=clientAuth\n', '2');
    const text = (name: string): string => readFileSync(file(name), 'utf8');
    return {
      authority: text('ca.crt'),
      serverKey: text('server.key'),
      serverCertificate: text('server.crt'),
      clientKey: text('client.key'),
      clientCertificate: text('client.crt'),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
