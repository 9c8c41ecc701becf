/**
 * How much one object may ask of a node. The API allows a Service with 20,000 ports whose slices have 20,000 ports and 1,000
 * endpoints each, which is more elements than a node has memory for: nobody means that, but one who may create Services
 * could use it against all the others. What is beyond a limit is left out and reported; the limits are far above what
 * large clusters have.
 */

/** Pairs of an endpoint and a port in one EndpointSlice. */
export const maxSlicePairs = 100_000;

/** Pairs of an address and a port of one Service, in one family. */
export const maxServiceAddresses = 50_000;

/** Pairs of a source range and an address and port that it restricts, of one Service in one family. */
export const maxServiceSources = 131_072;

/** Pairs of an address and an endpoint of one service port: what is programmed in one transaction. */
export const maxPortTargets = 131_072;

/** The same of all ports of a Service, in one family. */
export const maxServiceTargets = 524_288;

/**
 * Which of too many endpoints are used: those of this node before all others, since a policy may allow no others.
 *
 * @returns their indices, in order
 */
export function localFirst(
  endpoints: readonly { readonly local: boolean }[],
  most: number,
): readonly number[] {
  const indices: number[] = [];
  for (let at = 0; at < endpoints.length && indices.length < most; at++)
    if (endpoints[at]?.local === true) indices.push(at);
  for (let at = 0; at < endpoints.length && indices.length < most; at++)
    if (endpoints[at]?.local !== true) indices.push(at);
  return indices.sort((a, b) => a - b);
}

/** How many endpoints each of these ports of a Service may have. */
export function endpointLimit(ports: readonly { readonly addresses: readonly unknown[] }[]): number {
  let sum = 0;
  let largest = 1;
  for (const { addresses } of ports) {
    sum += addresses.length;
    if (addresses.length > largest) largest = addresses.length;
  }
  const byPort = Math.floor(maxPortTargets / largest);
  const byService = Math.floor(maxServiceTargets / Math.max(1, sum));
  return Math.max(1, Math.min(byPort, byService));
}
