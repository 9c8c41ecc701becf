/**
 * `make flows`: a million new flows in each mode while Services shrink, grow and move, and what became of them.
 *
 *     node dist/test/flows/main.js [--mode nftables|iptables] [--flows N] [--shrinks N] [--moves N] [--seconds N] [--pause MS] [--seed N]
 */
import { parseArgs } from 'node:util';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { runFlows, type FlowsResult, type Mode } from './run.js';

const { values } = parseArgs({
  options: {
    mode: { type: 'string' },
    flows: { type: 'string', default: '1000000' },
    shrinks: { type: 'string', default: '2000' },
    moves: { type: 'string', default: '50' },
    seconds: { type: 'string', default: '300' },
    pause: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
  },
});

function line(mode: Mode, result: FlowsResult): string {
  const { flows, seconds, changes, shrinks, moves, translated, untranslated, refused, entries } = result;
  const rate = Math.round(flows / seconds);
  return `${mode}: ${flows} flows in ${seconds.toFixed(1)} s (${rate}/s), ${changes} changes, ${shrinks} shrinks, ${moves} moves: ${translated} translated, ${untranslated} untranslated, ${refused} refused, ${entries} untranslated entries left\n`;
}

const unavailable = enterNetworkNamespace();
if (unavailable !== false) {
  process.stderr.write(`flows: ${unavailable}\n`);
  process.exit(1);
}
const modes: readonly Mode[] =
  values.mode === 'nftables' || values.mode === 'iptables' ? [values.mode] : ['nftables', 'iptables'];
for (const mode of modes) {
  const result = await runFlows({
    mode,
    seed: Number(values.seed),
    flows: Number(values.flows),
    shrinks: Number(values.shrinks),
    moves: Number(values.moves),
    seconds: Number(values.seconds),
    pauseMs: Number(values.pause),
    onProgress: (soFar) => process.stderr.write(`  ${line(mode, soFar)}`),
  });
  process.stdout.write(line(mode, result));
  const isEnough =
    result.flows >= Number(values.flows) &&
    result.shrinks >= Number(values.shrinks) &&
    result.moves >= Number(values.moves);
  if (!isEnough) process.stderr.write(`flows: not all that was asked for came in ${values.seconds} s\n`);
  if (!isEnough || result.untranslated + result.refused + result.entries > 0) process.exitCode = 1;
}
