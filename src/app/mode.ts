/**
 * Which mode runs. An empty `mode`, which is what kubeadm writes, gets nftables where the kernel has it, with what
 * upstream's default, iptables, gives its users: node ports on all addresses, loopback included.
 */
import type { Config, ProxyMode } from '../config/config.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

export type BuiltMode = ProxyMode;

export interface ChosenMode {
  readonly mode: BuiltMode;
  /** The configuration left it to us. */
  readonly automatic: boolean;
  /** For the log, an event and /proxyMode. */
  readonly reason: string;
}

/**
 * @param nftablesProblem why nf_tables can't be used here; undefined: it can
 * @param ipvsProblem the same of IPVS
 * @throws FatalError when the mode asked for can't run
 */
export function chooseMode(
  config: Pick<Config, 'mode'>,
  nftablesProblem: () => Error | undefined,
  ipvsProblem: () => Error | undefined,
): ChosenMode {
  const { mode } = config;
  if (mode === 'iptables') return { mode, automatic: false, reason: 'as configured' };
  const problem = mode === 'ipvs' ? ipvsProblem() : nftablesProblem();
  if (mode === 'nftables' || mode === 'ipvs') {
    if (problem !== undefined) throw problem;
    return { mode, automatic: false, reason: 'as configured' };
  }
  if (problem === undefined) {
    return {
      mode: 'nftables',
      automatic: true,
      reason:
        'no mode is configured and the kernel has nf_tables; node ports answer on all addresses, as in mode iptables',
    };
  }
  // Without the right to program the kernel no mode works.
  if (!(problem instanceof FatalError && problem.exitCode === exitCodes.kernelUnsupported)) throw problem;
  return {
    mode: 'iptables',
    automatic: true,
    reason: `no mode is configured and nftables is not to be had: ${problem.message}`,
  };
}
