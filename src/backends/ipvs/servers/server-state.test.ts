import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeCommand, FORWARDING, IPVS_SVC_F, type RealServer } from '@kube-proxy-ts/netlink/ipvs';
import type { Endpoint, ServicePort } from '../../../model/types.js';
import { desiredState, type DesiredServer } from '../desired-state.js';
import { schedulerNamed } from './schedulers.js';
import {
  planServer,
  settleServer,
  stateInKernel,
  type ServerChange,
  type ServerState,
} from './server-state.js';
import { L1, L2, R1, R2, servicePort } from '../testing/service-ports.js';

function wanted(fields: Partial<ServicePort> = {}, scheduler = 'rr'): DesiredServer {
  const context = { scheduler, traits: schedulerNamed(scheduler), nodePortAddresses: [] };
  const [plan] = desiredState(servicePort(fields), 0, context).services.values();
  assert.ok(plan);
  return plan.server;
}

function words({ commands }: ServerChange): string[] {
  return commands.map((command) => {
    const short = describeCommand(command).replace(
      / (of|virtual server) (tcp|udp|sctp) 10\.96\.0\.1:80$/,
      '',
    );
    return 'settings' in command ? `${short} weight ${command.settings.weight}` : short;
  });
}

function inKernel(fields: Partial<ServicePort> = {}, scheduler = 'rr'): ServerState {
  const { next } = planServer(undefined, wanted(fields, scheduler));
  assert.ok(next);
  return next;
}

function real(endpoint: Endpoint, weight = 1, active = 0, inactive = 0): RealServer {
  return {
    key: { family: 'ip', address: endpoint.ip, port: endpoint.port },
    settings: { forwarding: FORWARDING.masquerade, weight, upperThreshold: 0, lowerThreshold: 0 },
    activeConnections: active,
    inactiveConnections: inactive,
    persistentConnections: 0,
  };
}

test('a new virtual server, with all of its endpoints', () => {
  assert.deepEqual(words(planServer(undefined, wanted())), [
    'add',
    'add real server 10.61.1.31 port 9000 weight 1',
    'add real server 10.61.2.41 port 9000 weight 1',
  ]);
});

test('nothing wanted, nothing there: nothing to do', () => {
  assert.deepEqual(planServer(undefined, undefined).commands, []);
});

test('as it should be: nothing to do, also from another list with the same endpoints', () => {
  assert.deepEqual(planServer(inKernel(), wanted()).commands, []);
  assert.deepEqual(planServer(inKernel(), wanted({ clusterEndpoints: [{ ...R1 }, { ...L1 }] })).commands, []);
});

test('an endpoint comes; one goes, but for its connections', () => {
  const change = planServer(inKernel(), wanted({ clusterEndpoints: [R1, R2] }));
  assert.deepEqual(words(change), [
    'add real server 10.61.3.42 port 9000 weight 1',
    'change real server 10.61.1.31 port 9000 weight 0',
  ]);
  assert.equal(change.drains, true);
  assert.ok(change.next);
  assert.deepEqual([...change.next.draining.values()], [L1]);
  // It has connections, then only closing ones, then none.
  for (const [active, inactive] of [
    [1, 0],
    [0, 3],
  ] as const) {
    const settled = settleServer(change.next, [real(R1), real(R2), real(L1, 0, active, inactive)], false);
    assert.deepEqual(settled.commands, []);
    assert.equal(settled.next?.draining.size, 1);
  }
  const settled = settleServer(change.next, [real(R1, 1, 9, 9), real(R2), real(L1, 0)], false);
  assert.deepEqual(words(settled), ['delete real server 10.61.1.31 port 9000']);
  assert.equal(settled.next?.draining.size, 0);
});

test('an endpoint that is being drained is wanted again: it gets new connections, and keeps its old ones', () => {
  const { next } = planServer(inKernel(), wanted({ clusterEndpoints: [R1] }));
  const change = planServer(next, wanted());
  assert.deepEqual(words(change), ['change real server 10.61.1.31 port 9000 weight 1']);
  assert.equal(change.next?.draining.size, 0);
});

test('settings change without touching endpoints', () => {
  const change = planServer(inKernel(), wanted({ affinitySeconds: 600 }));
  assert.deepEqual(
    change.commands.map((command) => ('server' in command ? [command.do, command.server.settings] : command)),
    [
      [
        'change service',
        { scheduler: 'rr', flags: IPVS_SVC_F.persistent, timeoutSeconds: 600, clientPrefixLength: 32 },
      ],
    ],
  );
});

test('UDP: only endpoints that still serve keep their flows', () => {
  const udp = { protocol: 'UDP', clusterEndpoints: [L1, L2, R1] } as const;
  const serving = ['10.61.1.32:9000', '10.61.2.41:9000'];
  const change = planServer(
    inKernel(udp),
    wanted({ ...udp, clusterEndpoints: [R1], servingEndpoints: serving }),
  );
  assert.deepEqual(words(change), [
    'delete real server 10.61.1.31 port 9000',
    'change real server 10.61.1.32 port 9000 weight 0',
  ]);
  // It stops serving: its flows are to find another one.
  const later = planServer(
    change.next,
    wanted({ ...udp, clusterEndpoints: [R1], servingEndpoints: ['10.61.2.41:9000'] }),
  );
  assert.deepEqual(words(later), ['delete real server 10.61.1.32 port 9000']);
});

test('a virtual server that nobody wants stays for the connections of its endpoints', () => {
  const change = planServer(inKernel(), undefined);
  assert.deepEqual(words(change), [
    'change real server 10.61.1.31 port 9000 weight 0',
    'change real server 10.61.2.41 port 9000 weight 0',
  ]);
  assert.ok(change.next?.retired);
  const half = settleServer(change.next, [real(L1, 0, 1), real(R1, 0)], false);
  assert.deepEqual(words(half), ['delete real server 10.61.2.41 port 9000']);
  assert.ok(half.next);
  assert.deepEqual(words(settleServer(half.next, [real(L1, 0)], false)), ['delete']);
  // In front of sockets of the host it does not wait for connections that are closing.
  assert.deepEqual(settleServer(half.next, [real(L1, 0, 0, 1)], false).commands, []);
  assert.deepEqual(words(settleServer(half.next, [real(L1, 0, 0, 1)], true)), ['delete']);
  assert.deepEqual(words(settleServer(half.next, [real(L1, 0, 1, 0)], true)), []);
});

test('a virtual server that nobody wants and that is no TCP, or without endpoints, goes at once', () => {
  for (const protocol of ['UDP', 'SCTP'] as const)
    assert.deepEqual(words(planServer(inKernel({ protocol }), undefined)), ['delete']);
  assert.deepEqual(words(planServer(inKernel({ clusterEndpoints: [] }), undefined)), ['delete']);
});

test('a virtual server that is wanted again while it is left for its connections', () => {
  const { next } = planServer(inKernel(), undefined);
  const change = planServer(next, wanted({ clusterEndpoints: [L1, R2] }));
  assert.deepEqual(words(change), [
    'change real server 10.61.1.31 port 9000 weight 1',
    'add real server 10.61.3.42 port 9000 weight 1',
  ]);
  assert.equal(change.next?.retired, false);
  assert.deepEqual([...change.next.draining.values()], [R1]);
});

test('a scheduler that would stumble over endpoints of weight 0 drains nothing', () => {
  const change = planServer(inKernel({}, 'dh'), wanted({ clusterEndpoints: [R1] }, 'dh'));
  assert.deepEqual(words(change), ['delete real server 10.61.1.31 port 9000']);
  assert.deepEqual(words(planServer(inKernel({}, 'dh'), undefined)), ['delete']);
});

test('what an earlier process left: weights by hand stay, endpoints of weight 0 come back or are drained', () => {
  const server = wanted();
  const settings = { ...server.settings, flags: server.settings.flags | IPVS_SVC_F.hashed };
  const state = stateInKernel({ key: server.key, settings }, 'TCP', [
    real(L1, 0),
    real(R1, 7),
    real(R2, 0, 1),
  ]);
  const change = planServer(state, server);
  assert.deepEqual(words(change), ['change real server 10.61.1.31 port 9000 weight 1']);
  assert.deepEqual(
    [...(change.next?.draining.values() ?? [])].map(({ ip }) => ip),
    [R2.ip],
  );
});

test('an endpoint that is reached in another way is written anew', () => {
  const server = wanted();
  const tunnel = { ...real(L1).settings, forwarding: FORWARDING.tunnel };
  const state = stateInKernel(server, 'TCP', [{ ...real(L1), settings: tunnel }, real(R1)]);
  assert.deepEqual(words(planServer(state, server)), [
    'delete real server 10.61.1.31 port 9000',
    'add real server 10.61.1.31 port 9000 weight 1',
  ]);
});
