import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  NotationError,
  parseEndpoints,
  parseOutcome,
  parsePacket,
  parsePort,
  parseSlicePort,
} from './notation.js';

const ready = { ready: true, serving: true, terminating: false, zoneHints: [], nodeHints: [] };

describe('endpoints', () => {
  it('reads names, states and hints', () => {
    const [l1, r1, r2, l2] = parseEndpoints('L1 R1~ R2x[mtl-1,mtl-2]<alder> L2!', 'v4');
    assert.deepEqual(l1, { ...ready, addresses: ['10.61.1.31'], nodeName: 'alder' });
    assert.deepEqual(r1, {
      ...ready,
      addresses: ['10.61.2.41'],
      nodeName: 'birch',
      ready: false,
      terminating: true,
    });
    assert.deepEqual(r2, {
      addresses: ['10.61.3.42'],
      nodeName: 'cedar',
      ready: false,
      serving: false,
      terminating: true,
      zoneHints: ['mtl-1', 'mtl-2'],
      nodeHints: ['alder'],
    });
    assert.deepEqual([l2?.ready, l2?.serving, l2?.terminating], [false, false, false]);
  });

  it('reads fields by name, several addresses, no address, and a literal', () => {
    const [first, second, third, fourth] = parseEndpoints(
      'L1(ready=nil,terminating=true,node=nil) L1+L2 () 100.64.10.11@alder',
      'v4',
    );
    assert.deepEqual([first?.ready, first?.terminating, first?.nodeName], [undefined, true, undefined]);
    assert.deepEqual(second?.addresses, ['10.61.1.31', '10.61.1.32']);
    assert.deepEqual(third?.addresses, []);
    assert.deepEqual([fourth?.addresses, fourth?.nodeName], [['100.64.10.11'], 'alder']);
  });

  it('spells ranges out, in either family', () => {
    assert.equal(parseEndpoints('R11..R17', 'v6').length, 7);
    assert.deepEqual(parseEndpoints('R11..R17', 'v6').at(-1)?.addresses, ['fd61:0:0:3::117']);
    assert.equal(
      parseEndpoints('fd61:0:0:4::1..100', 'v6')
        .map(({ addresses }) => addresses[0])
        .at(-1),
      'fd61:0:0:4::100',
    );
    assert.deepEqual(parseEndpoints('none', 'v4'), []);
  });

  it('refuses what it does not understand', () => {
    assert.throws(() => parseEndpoints('L1(colour=red)', 'v4'), NotationError);
    assert.throws(() => parseEndpoints('L1[', 'v4'), NotationError);
  });
});

describe('packets', () => {
  it('reads symbolic and literal targets', () => {
    assert.deepEqual(parsePacket('P1..P3 -> plum.VIP2:81 UDP'), {
      from: ['P1', 'P2', 'P3'],
      kind: 'VIP',
      service: 'plum',
      ordinal: 2,
      address: '',
      port: 81,
      protocol: 'UDP',
    });
    assert.deepEqual(
      [
        'XA -> 192.0.2.90:443',
        'XA -> [2001:db8:b::90]:443',
        'PA -> fd77::50 ICMP',
        'PA -> L1:9000',
        'XA -> NP',
      ]
        .map(parsePacket)
        .map(({ kind, address, port }) => [kind, address, port]),
      [
        ['literal', '192.0.2.90', 443],
        ['literal', '2001:db8:b::90', 443],
        ['literal', 'fd77::50', undefined],
        ['literal', 'L1', 9000],
        ['NP', '', undefined],
      ],
    );
  });

  it('refuses a line without an arrow', () => {
    assert.throws(() => parsePacket('PA CIP:80'), NotationError);
  });
});

describe('outcomes', () => {
  it('reads sets of endpoints with one source rule or one each', () => {
    const outcome = parseOutcome('{L1 masq,R1:9001 keep}', 'v4');
    assert.deepEqual(outcome, {
      kind: 'endpoints',
      quantity: 'all',
      endpoints: [
        { name: 'L1', address: '10.61.1.31', port: undefined, source: 'masq' },
        { name: 'R1', address: '10.61.2.41', port: 9001, source: 'keep' },
      ],
    });
    assert.deepEqual(parseOutcome('one of {2001:db8:a::11} masq', 'v6'), {
      kind: 'endpoints',
      quantity: 'one',
      endpoints: [{ name: '2001:db8:a::11', address: '2001:db8:a::11', port: undefined, source: 'masq' }],
    });
  });

  it('reads verdicts and comparisons', () => {
    assert.deepEqual(parseOutcome('REJECT', 'v4'), { kind: 'REJECT' });
    assert.deepEqual(parseOutcome('PASS keep', 'v4'), { kind: 'PASS' });
    assert.deepEqual(parseOutcome('partly other than first', 'v4'), {
      kind: 'compared',
      how: 'partly other',
      with: 'first',
    });
    assert.throws(() => parseOutcome('{L1} sometimes', 'v4'), NotationError);
  });
});

describe('ports', () => {
  it('reads service ports and slice ports', () => {
    assert.deepEqual(parsePort('80/TCP', 31110), {
      name: '',
      port: 80,
      protocol: 'TCP',
      nodePort: 31110,
      target: 9000,
    });
    assert.deepEqual(parsePort('web 80/UDP np 31001 -> 9500', 0), {
      name: 'web',
      port: 80,
      protocol: 'UDP',
      nodePort: 31001,
      target: 9500,
    });
    assert.deepEqual(parseSlicePort('nil 9000/TCP'), { name: undefined, port: 9000, protocol: 'TCP' });
    assert.deepEqual(parseSlicePort('nil/TCP'), { name: '', port: undefined, protocol: 'TCP' });
  });
});
