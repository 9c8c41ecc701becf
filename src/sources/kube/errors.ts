/** Errors of this folder: one class, a stable code for the exit table and for tests, one line of text with advice. */

export type KubeErrorCode =
  | 'KUBE_CONFIG_MISSING'
  | 'KUBE_CONFIG_UNREADABLE'
  | 'KUBE_CONFIG_INVALID'
  | 'KUBE_CONTEXT_MISSING'
  | 'KUBE_CLUSTER_MISSING'
  | 'KUBE_USER_MISSING'
  | 'KUBE_CREDENTIAL_FILE'
  | 'KUBE_EXEC_PLUGIN'
  | 'KUBE_AUTH_UNSUPPORTED'
  | 'KUBE_NOT_IN_CLUSTER'
  | 'KUBE_SERVER_URL'
  | 'KUBE_CONTENT_TYPE'
  | 'KUBE_CONNECT_REFUSED'
  | 'KUBE_DNS'
  | 'KUBE_UNREACHABLE'
  | 'KUBE_PROXY'
  | 'KUBE_TLS_UNTRUSTED'
  | 'KUBE_TLS_EXPIRED'
  | 'KUBE_TLS_HOSTNAME'
  | 'KUBE_TLS_FAILED'
  | 'KUBE_TIMEOUT'
  | 'KUBE_CONNECTION_LOST'
  | 'KUBE_UNAUTHORIZED'
  | 'KUBE_FORBIDDEN'
  | 'KUBE_API_STATUS'
  | 'KUBE_STREAM_GARBAGE'
  | 'KUBE_OBJECT_BROKEN';

/** Anything that keeps us from the API server's data. `message` is one line: what is wrong, then what to do. */
export class KubeError extends Error {
  override readonly name: string = 'KubeError';
  readonly code: KubeErrorCode;

  constructor(code: KubeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The bytes of a response are not what they claim to be. Nothing after `offset` can be trusted. */
export class GarbageError extends KubeError {
  override readonly name = 'GarbageError';
  /** Bytes from the start of the body. */
  readonly offset: number;

  constructor(message: string, offset: number, options?: ErrorOptions) {
    super('KUBE_STREAM_GARBAGE', `${message} (byte ${offset} of the response)`, options);
    this.offset = offset;
  }
}

/** One object can't be understood; its neighbours are not affected. */
export class BrokenObjectError extends KubeError {
  override readonly name = 'BrokenObjectError';
  /** Field path ('spec.ports[0].port'), or a byte offset inside the object in protobuf. */
  readonly where: string;

  constructor(where: string, message: string, options?: ErrorOptions) {
    super('KUBE_OBJECT_BROKEN', `${where}: ${message}`, options);
    this.where = where;
  }
}
