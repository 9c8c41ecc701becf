import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../config/config.js';
import { parseCommandLine } from '../config/flags/command-line.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import { chooseModeOf, type ChosenMode } from './choose-mode.js';

const unsupported = new FatalError(exitCodes.kernelUnsupported, 'the kernel has no nf_tables');
const forbidden = new FatalError(exitCodes.notPermitted, 'not permitted');

/** @param configured `--proxy-mode`; @param problems by mode */
function choose(
  configured: string,
  problems: Readonly<Record<string, Error>> = {},
): ChosenMode<{ name: string }> {
  const candidate = (name: string) => ({ name, probe: () => problems[name] });
  return chooseModeOf(loadConfig(parseCommandLine([`--proxy-mode=${configured}`])), {
    named: candidate,
    automatic: ['nftables', 'iptables'].map(candidate),
  });
}

test('no mode configured: the first that the kernel has', () => {
  const { mode, automatic, reason } = choose('');
  assert.deepEqual([mode.name, automatic], ['nftables', true]);
  assert.match(reason, /no mode is configured, nftables was chosen/);
});

test('no mode configured, no nf_tables: iptables, and why', () => {
  const { mode, automatic, reason } = choose('', { nftables: unsupported });
  assert.deepEqual([mode.name, automatic], ['iptables', true]);
  assert.match(reason, /nftables is not available: the kernel has no nf_tables/);
});

test('no mode configured, and none can be had: the error of the last', () => {
  assert.throws(() => choose('', { nftables: unsupported, iptables: unsupported }), unsupported);
});

test('without the right to program the kernel no mode is chosen', () => {
  assert.throws(() => choose('', { nftables: forbidden }), forbidden);
});

test('a mode that was asked for is taken, or refused; never another one', () => {
  assert.equal(choose('nftables').mode.name, 'nftables');
  assert.throws(() => choose('nftables', { nftables: unsupported }), unsupported);
  const iptables = choose('iptables', { nftables: unsupported });
  assert.deepEqual([iptables.mode.name, iptables.automatic], ['iptables', false]);
  assert.equal(choose('ipvs', { nftables: unsupported }).mode.name, 'ipvs');
  assert.throws(() => choose('ipvs', { ipvs: unsupported }), unsupported);
});
