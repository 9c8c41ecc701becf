/**
 * The checks can fail: in a topology without any proxy, hand-written rules treat one service address in each of the ways
 * that the cases tell apart. For every treatment the right expectation must hold, and all others must not.
 * Needs root; skipped otherwise.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Family } from '../addresses.js';
import { findActor, nodeAddress, placeOf, sameAddress, toV6 } from '../addresses.js';
import type { Circumstances, Observation } from '../judge.js';
import { judge, silence } from '../judge.js';
import { parseOutcome } from '../notation.js';
import type { Protocol } from '../protocol.js';
import { hasSctp } from '../sctp.js';
import { Topology, removeStale } from '../topology.js';

interface Treatment {
  readonly target: string;
  readonly expectation: string;
}

const protocols: readonly Protocol[] = ['TCP', 'UDP', ...(hasSctp() ? (['SCTP'] as const) : [])];

/** Port 80 of these addresses, by the rules below. */
const treatments: readonly Treatment[] = [
  { target: '10.177.0.1', expectation: '{L1,R1} keep' },
  { target: '10.177.0.2', expectation: '{L1,R1} masq' },
  { target: '10.177.0.3', expectation: 'REJECT' },
  { target: '10.177.0.4', expectation: 'DROP' },
  { target: '10.177.0.5', expectation: 'PASS' },
  { target: '10.177.0.6', expectation: '{L1} keep' },
  { target: '10.177.0.7', expectation: '{L1 masq,R1 keep}' },
];

function rules(family: Family): string {
  const ip = family === 'v4' ? 'ip' : 'ip6';
  const twin = (address: string): string => (family === 'v4' ? address : toV6(address));
  const local = findActor('L1')![family];
  const remote = findActor('R1')![family];
  const both = `{ 0 : ${local} . 9000, 1 : ${remote} . 9000 }`;
  const translated = `{ ${['1', '2', '7'].map((last) => twin(`10.177.0.${last}`)).join(', ')} }`;
  return `
table ${ip} by-hand {
  chain translate {
    ${ip} daddr ${translated} th dport 80 meta l4proto { tcp, udp, sctp } dnat to numgen random mod 2 map ${both}
    ${ip} daddr ${twin('10.177.0.6')} th dport 80 meta l4proto { tcp, udp, sctp } dnat to numgen random mod 1 map { 0 : ${local} . 9000 }
  }
  chain marking {
    ${ip} daddr ${twin('10.177.0.2')} meta mark set 0x4000
    ${ip} daddr ${twin('10.177.0.7')} meta mark set 0x8000
  }
  chain refusing {
    ${ip} daddr ${twin('10.177.0.3')} reject
    ${ip} daddr ${twin('10.177.0.4')} drop
  }
  chain prerouting-marks { type filter hook prerouting priority -110; jump marking; }
  chain output-marks { type filter hook output priority -110; jump marking; }
  chain prerouting { type nat hook prerouting priority -100; jump translate; }
  chain output { type nat hook output priority -100; jump translate; }
  chain forward { type filter hook forward priority 0; jump refusing; }
  chain output-refused { type filter hook output priority 0; jump refusing; }
  chain postrouting {
    type nat hook postrouting priority 100;
    meta mark 0x4000 masquerade fully-random
    meta mark 0x8000 ${ip} daddr ${local} masquerade fully-random
  }
}
`;
}

describe('what the harness tells apart', { skip: process.getuid?.() !== 0 ? 'needs root' : false }, () => {
  let topology: Topology;

  before(async () => {
    await removeStale();
    topology = await Topology.build(90, protocols);
    for (const place of ['local-pods', 'remote-pods'] as const) {
      const endpoint = findActor(place === 'local-pods' ? 'L1' : 'R1')!;
      await topology.agent(place).request({
        op: 'listen',
        sockets: protocols.flatMap((protocol) =>
          [endpoint.v4, endpoint.v6].map((address) => ({ protocol, address, port: 9000 })),
        ),
      });
    }
    await topology.exec('alder', 'nft', ['-f', '-'], rules('v4') + rules('v6'));
  });

  after(async () => {
    await topology.destroy();
  });

  for (const family of ['v4', 'v6'] as const) {
    for (const protocol of protocols) {
      for (const client of ['PA', 'XA', 'HA']) {
        it(`${client} over ${protocol}, ${family}`, async () => {
          for (const treatment of treatments)
            await holdAgainstAll(topology, client, family, protocol, treatment);
        });
      }
    }
  }

  it('forgets every connection on request', async () => {
    const count = async (): Promise<number> =>
      Number(await topology.exec('alder', 'cat', ['/proc/sys/net/netfilter/nf_conntrack_count']));
    assert.ok((await count()) > 0);
    await topology.forgetConnections();
    assert.equal(await count(), 0);
  });
});

async function holdAgainstAll(
  topology: Topology,
  client: string,
  family: Family,
  protocol: Protocol,
  treatment: Treatment,
): Promise<void> {
  const actor = findActor(client)!;
  const source = actor[family];
  const target = family === 'v4' ? treatment.target : toV6(treatment.target);
  const probe = { protocol, source, sourcePort: 0, target, port: 80, timeout: silence(protocol, target) };
  const results = await topology
    .agent(actor.place)
    .request({ op: 'probe', probes: Array(24).fill(probe) as (typeof probe)[] });
  const observations: Observation[] = results.map((result) => ({ source, result, count: 1 }));
  const circumstances: Circumstances = {
    target,
    port: 80,
    targetPlace: placeOf(target),
    backendPort: 9000,
    isAlder: (address) => sameAddress(address, nodeAddress[family]),
  };
  for (const { expectation } of treatments) {
    // Of a process of the node, masq and keep cannot be told apart: both are addresses of the node.
    const alike =
      client === 'HA' &&
      expectation.replace(/ masq| keep/g, '') === treatment.expectation.replace(/ masq| keep/g, '');
    const holds =
      judge(parseOutcome(expectation, family), observations, circumstances, undefined) === undefined;
    const text = `${client} -> ${target} is treated as ${treatment.expectation}; that it is ${expectation}`;
    if (expectation === treatment.expectation || alike) assert.ok(holds, `${text} must hold`);
    else assert.ok(!holds, `${text} must not hold`);
  }
}
