/**
 * At a start: how long trouble with the API server has to last until it ends the process, with a code that tells why.
 */
import { KubeError, type KubeErrorCode } from '../sources/kube/errors.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

/** What keeps us from the API server, by the exit code it ends with. */
const exitCodeOf: Readonly<Partial<Record<KubeErrorCode, number>>> = {
  KUBE_TLS_UNTRUSTED: exitCodes.apiCertificate,
  KUBE_TLS_EXPIRED: exitCodes.apiCertificate,
  KUBE_TLS_HOSTNAME: exitCodes.apiCertificate,
  KUBE_TLS_FAILED: exitCodes.apiCertificate,
  KUBE_UNAUTHORIZED: exitCodes.apiUnauthorized,
  KUBE_FORBIDDEN: exitCodes.apiUnauthorized,
  KUBE_CONFIG_MISSING: exitCodes.credentials,
  KUBE_CONFIG_UNREADABLE: exitCodes.credentials,
  KUBE_CONFIG_INVALID: exitCodes.credentials,
  KUBE_CONTEXT_MISSING: exitCodes.credentials,
  KUBE_CLUSTER_MISSING: exitCodes.credentials,
  KUBE_USER_MISSING: exitCodes.credentials,
  KUBE_CREDENTIAL_FILE: exitCodes.credentials,
  KUBE_EXEC_PLUGIN: exitCodes.credentials,
  KUBE_AUTH_UNSUPPORTED: exitCodes.credentials,
  KUBE_NOT_IN_CLUSTER: exitCodes.credentials,
  KUBE_SERVER_URL: exitCodes.credentials,
  KUBE_CONTENT_TYPE: exitCodes.configuration,
};

/** At the start, these do not get better by waiting: the operator has to act. */
const hopeless = new Set<number>([
  exitCodes.apiCertificate,
  exitCodes.apiUnauthorized,
  exitCodes.credentials,
]);

/** Some of them do for a moment: a server that has just started refuses everybody until it has read its own rules. */
const maybePasses = new Set<KubeErrorCode>([
  'KUBE_UNAUTHORIZED',
  'KUBE_FORBIDDEN',
  'KUBE_EXEC_PLUGIN',
  'KUBE_CREDENTIAL_FILE',
]);
const passesWithinMs = 10_000;

/** @param otherwise for failures that have no code of their own */
export function exitCodeFor(error: KubeError, otherwise: number): number {
  return exitCodeOf[error.code] ?? otherwise;
}

export class StartPatience {
  private readonly timeoutMs: number;
  private readonly now: () => number;
  private readonly startedAt: number;
  private hopelessSince: number | undefined;

  /**
   * @param timeoutMs --startup-timeout; 0: none
   * @param now milliseconds that never go back
   */
  constructor(timeoutMs: number, now: () => number = () => performance.now()) {
    this.timeoutMs = timeoutMs;
    this.now = now;
    this.startedAt = now();
  }

  /**
   * Asked now and then, with what keeps us from the data now.
   * @returns what ends the process, if anything does
   */
  judge(error: Error | undefined): FatalError | undefined {
    if (error === undefined) {
      this.hopelessSince = undefined;
      return undefined;
    }
    const now = this.now();
    const code =
      error instanceof KubeError ? exitCodeFor(error, exitCodes.apiUnreachable) : exitCodes.failure;
    if (hopeless.has(code)) {
      this.hopelessSince ??= now;
      const passes = error instanceof KubeError && maybePasses.has(error.code);
      if (!passes || now - this.hopelessSince >= passesWithinMs) {
        return new FatalError(code, error.message, { cause: error });
      }
    } else {
      this.hopelessSince = undefined;
    }
    const waited = now - this.startedAt;
    if (this.timeoutMs <= 0 || waited < this.timeoutMs) return undefined;
    const seconds = Math.round(waited / 1000);
    return new FatalError(code, `gave up after ${seconds} s (--startup-timeout): ${error.message}`, {
      cause: error,
    });
  }
}
