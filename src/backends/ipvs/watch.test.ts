import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { silentLogger } from '../../log/logger.js';
import type { AddressHandlers, InterfaceAddress } from '@kube-proxy-ts/netlink/rtnetlink';
import { TableDamagedError } from '../backend.js';
import { IpvsWatch } from './watch.js';

function lab() {
  mock.timers.enable({ apis: ['setTimeout'] });
  const reported: string[] = [];
  const backOff: number[] = [];
  const state = { damage: '', checks: 0, withAddresses: 0, busyMs: 0, wait: Promise.resolve() };
  let handlers: AddressHandlers | undefined;
  const watch = new IpvsWatch({
    families: [
      {
        family: 'IPv4',
        hasBound: (ip) => ip === '10.96.0.1',
        check: async ({ addresses }) => {
          state.checks++;
          if (addresses) state.withAddresses++;
          await state.wait;
          if (state.damage !== '') throw new TableDamagedError(state.damage);
          return state.busyMs;
        },
      },
    ],
    onForeignChange: (family) => reported.push(family),
    onBackoff: (_by, delayMs) => backOff.push(delayMs),
    log: silentLogger,
    subscribe: (given) => {
      handlers = given;
      return { close: () => Promise.resolve() };
    },
  });
  const address = (action: 'new' | 'delete', ip: string): void => {
    handlers?.onAddress(action, { address: ip } as InterfaceAddress);
  };
  const end = async (): Promise<void> => {
    await watch.close();
    mock.timers.reset();
  };
  const tick = async (ms: number): Promise<void> => {
    mock.timers.tick(ms);
    await settle();
  };
  return { reported, backOff, state, address, end, tick, lost: () => handlers?.onOverrun() };
}

/** What was begun has been done, unless it waits for something else. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

test('IPVS is looked at every five seconds', async () => {
  const { reported, state, end, tick } = lab();
  await tick(4_999);
  assert.equal(state.checks, 0);
  for (let n = 0; n < 3; n++) await tick(5_000);
  assert.equal(state.checks, 3);
  assert.deepEqual(reported, []);
  state.damage = 'gone';
  await tick(5_000);
  assert.deepEqual(reported, ['IPv4']);
  await end();
});

test('an address that somebody deletes is noticed at once; others are nobody’s business', async () => {
  const { state, address, end, tick, lost } = lab();
  address('new', '10.96.0.1');
  address('delete', '192.0.2.1');
  await tick(1_000);
  assert.equal(state.checks, 0);
  address('delete', '10.96.0.1');
  await tick(20);
  assert.equal(state.checks, 1);
  lost();
  await tick(20);
  assert.equal(state.checks, 2);
  await end();
});

test('two programs that fight are damped, until there is peace', async () => {
  const { reported, backOff, state, address, end, tick } = lab();
  state.damage = 'gone';
  await tick(5_000);
  assert.equal(reported.length, 1);
  const repaired: number[] = [];
  for (let second = 1; second <= 200; second++) {
    const before = [...reported];
    address('delete', '10.96.0.1');
    await tick(1_000);
    if (reported.length > before.length) repaired.push(second);
  }
  assert.deepEqual(repaired, [1, 2, 12, 32, 72, 132, 192]);
  // Told from the third time on: twice may be chance.
  assert.deepEqual(backOff, [10_000, 20_000, 40_000, 60_000, 60_000, 60_000]);
  state.damage = '';
  await tick(60_000);
  const { checks } = state;
  await tick(5_000);
  assert.equal(state.checks, checks + 1);
  await end();
});

test('looking takes a small share of the time, whatever else goes on meanwhile', async () => {
  const { state, end, tick } = lab();
  state.busyMs = 100;
  let go: () => void = () => undefined;
  state.wait = new Promise((resolve) => {
    go = resolve;
  });
  await tick(5_000);
  await tick(2_000);
  go();
  await settle();
  await tick(9_999);
  assert.equal(state.checks, 1);
  await tick(1);
  assert.equal(state.checks, 2);
  await end();
});

test('the service interface is looked at when the kernel told of it, else once a minute', async () => {
  const { state, address, end, tick } = lab();
  for (let n = 0; n < 11; n++) await tick(5_000);
  assert.deepEqual([state.checks, state.withAddresses], [11, 0]);
  await tick(5_000);
  assert.equal(state.withAddresses, 1);
  address('delete', '10.96.0.1');
  await tick(20);
  assert.deepEqual([state.checks, state.withAddresses], [13, 2]);
  await end();
});

test('one look at a time; what is told meanwhile is looked at afterwards, and the end waits for it', async () => {
  const { state, address, end, tick } = lab();
  let go: () => void = () => undefined;
  state.wait = new Promise((resolve) => {
    go = resolve;
  });
  await tick(5_000);
  address('delete', '10.96.0.1');
  await tick(60_000);
  assert.equal(state.checks, 1);
  go();
  await settle();
  await tick(20);
  assert.deepEqual([state.checks, state.withAddresses], [2, 1]);
  await end();
});
