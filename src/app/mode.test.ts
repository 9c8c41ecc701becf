import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import { chooseMode } from './mode.js';

const unsupported = new FatalError(exitCodes.kernelUnsupported, 'the kernel has no nf_tables');
const forbidden = new FatalError(exitCodes.notPermitted, 'not permitted');
const fine = (): undefined => undefined;

test('no mode configured: nftables where the kernel has it', () => {
  const { mode, automatic, reason } = chooseMode({ mode: '' }, fine, fine);
  assert.deepEqual([mode, automatic], ['nftables', true]);
  assert.match(reason, /no mode is configured and the kernel has nf_tables/);
});

test('no mode configured, no nf_tables: iptables, and why', () => {
  const { mode, automatic, reason } = chooseMode({ mode: '' }, () => unsupported, fine);
  assert.deepEqual([mode, automatic], ['iptables', true]);
  assert.match(reason, /nftables is not to be had: the kernel has no nf_tables/);
});

test('without the right to program the kernel no mode is chosen', () => {
  assert.throws(() => chooseMode({ mode: '' }, () => forbidden, fine), forbidden);
});

test('a mode that was asked for is taken, or refused; never another one', () => {
  assert.deepEqual(chooseMode({ mode: 'nftables' }, fine, fine).mode, 'nftables');
  assert.throws(() => chooseMode({ mode: 'nftables' }, () => unsupported, fine), unsupported);
  const iptables = chooseMode({ mode: 'iptables' }, () => unsupported, fine);
  assert.deepEqual([iptables.mode, iptables.automatic], ['iptables', false]);
  assert.deepEqual(chooseMode({ mode: 'ipvs' }, () => unsupported, fine).mode, 'ipvs');
  assert.throws(() => chooseMode({ mode: 'ipvs' }, fine, () => unsupported), unsupported);
});
