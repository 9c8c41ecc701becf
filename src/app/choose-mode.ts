/**
 * Which mode runs. An empty `mode`, which is what kubeadm writes, gets the best one that the kernel has, with what
 * upstream's default, iptables, gives its users: node ports on all addresses, loopback included.
 */
import type { Mode } from '../backends/mode.js';
import { automaticChoice, modeNamed } from '../backends/modes.js';
import type { Config } from '../config/config.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';

export interface ChosenMode<M = Mode> {
  readonly mode: M;
  /** The configuration left it to us. */
  readonly automatic: boolean;
  /** For the log, an event and /proxyMode. */
  readonly reason: string;
}

/** What the choice looks at. */
type Candidate = Pick<Mode, 'name' | 'probe'>;

export interface ModeChoice<M extends Candidate> {
  readonly named: (name: string) => M | undefined;
  /** What an empty mode tries, in this order. */
  readonly automatic: readonly M[];
}

/** @throws FatalError when the mode asked for can't run, or none can */
export function chooseMode(config: Config): ChosenMode {
  return chooseModeOf(config, { named: modeNamed, automatic: automaticChoice });
}

/** The same among given modes. */
export function chooseModeOf<M extends Candidate>(config: Config, choice: ModeChoice<M>): ChosenMode<M> {
  if (config.mode === '') return automaticMode(config, choice.automatic);
  const mode = choice.named(config.mode);
  if (mode === undefined) throw new FatalError(exitCodes.configuration, `there is no mode ${config.mode}`);
  const problem = mode.probe(config);
  if (problem !== undefined) throw problem;
  return { mode, automatic: false, reason: 'as configured' };
}

function automaticMode<M extends Candidate>(config: Config, candidates: readonly M[]): ChosenMode<M> {
  const passedOver: string[] = [];
  let problem: Error | undefined;
  for (const mode of candidates) {
    problem = mode.probe(config);
    if (problem === undefined) {
      const why = passedOver.length === 0 ? 'the kernel has what it needs' : passedOver.join(', ');
      return {
        mode,
        automatic: true,
        reason: `no mode is configured, ${mode.name} was chosen: ${why}; node ports answer on all addresses, as in mode iptables`,
      };
    }
    // Without the right to program the kernel no mode works.
    if (!(problem instanceof FatalError && problem.exitCode === exitCodes.kernelUnsupported)) throw problem;
    passedOver.push(`${mode.name} is not available: ${problem.message}`);
  }
  throw problem ?? new FatalError(exitCodes.failure, 'there is no mode to choose from');
}
