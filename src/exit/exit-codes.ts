/**
 * Exit codes, one per kind of mistake an operator can make; docs/errors.md is their table.
 */
export const exitCodes = {
  ok: 0,
  /** Something this program did not foresee. */
  failure: 1,
  /** Command line or configuration file. */
  configuration: 2,
  /** Not root, or without CAP_NET_ADMIN. */
  notPermitted: 3,
  /** The kernel lacks what the mode needs. */
  kernelUnsupported: 4,
  /** API server refused the connection, its name does not resolve, or it does not answer. */
  apiUnreachable: 5,
  /** The API server's certificate is not trusted, or ours is not accepted. */
  apiCertificate: 6,
  /** 401 or 403 from the API server. */
  apiUnauthorized: 7,
  /** kubeconfig or in-cluster credentials. */
  credentials: 8,
  /** Manifest file or folder. */
  manifests: 9,
  /** A health or metrics port is taken (with --bind-address-hard-fail). */
  addressInUse: 10,
  /** --cleanup could not remove everything. */
  leftBehind: 11,
} as const;

/** An error that ends the process, with the code it ends with and a one-line message for the operator. */
export class FatalError extends Error {
  constructor(
    readonly exitCode: number,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
