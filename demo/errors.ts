/** What can go wrong in the demo. The message says what is wrong and what to do; `code` is stable. */
export type DemoErrorCode =
  /** No way to make network namespaces here. */
  | 'NO_NAMESPACES'
  /** A command of the set-up is missing or failed. */
  | 'SETUP_FAILED'
  /** kube-proxy ended, or said nothing in time. */
  | 'PROXY_FAILED'
  /** The traffic is not what the story promises. */
  | 'TRAFFIC_WRONG';

export class DemoError extends Error {
  override readonly name = 'DemoError';

  constructor(
    readonly code: DemoErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
