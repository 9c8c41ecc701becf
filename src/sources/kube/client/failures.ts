/** From what sockets and TLS say to one line for the operator. Codes: Node.js documentation, errors and tls (X509). */
import { KubeError, type KubeErrorCode } from '../errors.js';

const untrusted = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_UNTRUSTED',
  'INVALID_CA',
  'CERT_SIGNATURE_FAILURE',
]);

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  const code = (error as NodeJS.ErrnoException).code;
  if (typeof code === 'string') return code;
  // Happy eyeballs: one error per address that was tried.
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  return '';
}

/** @param server as printed: 'https://host:port' */
export function connectFailure(error: unknown, server: string): KubeError {
  if (error instanceof KubeError) return error;
  const code = codeOf(error);
  const reason = error instanceof Error && error.message !== '' ? error.message : code;
  const make = (kubeCode: KubeErrorCode, text: string): KubeError =>
    new KubeError(kubeCode, text, { cause: error });
  switch (code) {
    case 'ECONNREFUSED':
      return make(
        'KUBE_CONNECT_REFUSED',
        `API server ${server} refuses the connection: check that it runs and that the address and port are right`,
      );
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'EAI_NONAME':
      return make(
        'KUBE_DNS',
        `the host name of API server ${server} can't be resolved (${code}): check the name and the node's DNS, ` +
          'or use an IP address (cluster DNS does not work before kube-proxy does)',
      );
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ETIMEDOUT':
    case 'EADDRNOTAVAIL':
      return make(
        'KUBE_UNREACHABLE',
        `API server ${server} can't be reached (${code}): check routes and firewalls between this node and it`,
      );
    case 'CERT_HAS_EXPIRED':
    case 'CERT_NOT_YET_VALID':
      return make(
        'KUBE_TLS_EXPIRED',
        code === 'CERT_HAS_EXPIRED'
          ? `the certificate of API server ${server} has expired: renew it, and check this node's clock`
          : `the certificate of API server ${server} is not valid yet: check this node's clock`,
      );
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return make(
        'KUBE_TLS_HOSTNAME',
        `the certificate of API server ${server} is for another name (${reason}): ` +
          'use a name that it holds, or set tls-server-name in the kubeconfig',
      );
    default:
  }
  if (untrusted.has(code)) {
    return make(
      'KUBE_TLS_UNTRUSTED',
      `the certificate of API server ${server} is not trusted (${code}): ` +
        'put the CA that signed it into certificate-authority of the kubeconfig',
    );
  }
  if (/^ERR_(SSL|TLS|OSSL)|^EPROTO$/.test(code)) {
    const plain = /wrong version number|packet length too long/i.test(reason);
    return make(
      'KUBE_TLS_FAILED',
      plain
        ? `API server ${server} does not speak TLS on this port: use http://, or the TLS port`
        : `TLS with API server ${server} failed (${reason}): check the client certificate and key`,
    );
  }
  return make('KUBE_CONNECTION_LOST', `connection to API server ${server} failed: ${reason}`);
}

/** An established connection or a running body broke. */
export function lostConnection(error: unknown, server: string): KubeError {
  if (error instanceof KubeError) return error;
  const reason = error instanceof Error && error.message !== '' ? error.message : String(error);
  return new KubeError('KUBE_CONNECTION_LOST', `connection to API server ${server} was cut: ${reason}`, {
    cause: error,
  });
}
