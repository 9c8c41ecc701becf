import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  classMap,
  className,
  ClassNumbers,
  externalLocalClass,
  nodePortLocalClass,
  parseClassName,
  type ClassKind,
  type ServiceClass,
} from './classes.js';

/** As nft prints a class number. */
const print = (id: number): string => `${(id >>> 16).toString(16)}:${(id & 0xffff).toString(16)}`;

const classes: [of: [ClassKind, number, number], name: string, id: string, map: string][] = [
  [['cluster', 3, 0], 'cluster-3', '1:3', 'service-classes'],
  [['cluster-local', 1, 0], 'cluster-local-1', '2:1', 'service-classes'],
  [['external', 65_535, 0], 'external-65535', '3:ffff', 'service-classes'],
  [['pick', 10, 0], 'pick-10', '4:a', 'pick-classes'],
  [['pick-local', 2, 0], 'pick-local-2', '5:2', 'pick-classes'],
  [['nodeport', 2, 0], 'nodeport-2', '6:2', 'service-classes'],
  [['nodeport-pick', 2, 0], 'nodeport-pick-2', '7:2', 'pick-classes'],
  [['nodeport-pick-local', 2, 0], 'nodeport-pick-local-2', '8:2', 'pick-classes'],
  [['cluster', 2, 600], 'cluster-2-affinity-600', '1000:2', 'service-classes'],
  [['cluster', 3, 600], 'cluster-3-affinity-600', '1000:3', 'service-classes'],
  [['external', 2, 600], 'external-2-affinity-600', '1001:2', 'service-classes'],
  [['cluster', 2, 10_800], 'cluster-2-affinity-10800', '1002:2', 'service-classes'],
];

const classOf = ([kind, endpoints, affinitySeconds]: [ClassKind, number, number]): ServiceClass => ({
  kind,
  endpoints,
  affinitySeconds,
});

describe('names and numbers', () => {
  const numbers = new ClassNumbers();
  for (const [parts, name, id, map] of classes) {
    test(`${name} is ${id}`, () => {
      const of = classOf(parts);
      assert.equal(className(of), name);
      assert.deepEqual(parseClassName(name), of);
      assert.equal(print(numbers.idOf(of)), id);
      assert.equal(print(numbers.idOf(of)), id, 'and stays so');
      assert.equal(classMap(of.kind), map);
    });
  }

  test('no class has the number of a fixed one', () => {
    assert.deepEqual([print(externalLocalClass.id), print(nodePortLocalClass.id)], ['f00:1', 'f00:2']);
  });
});

for (const name of [
  'services',
  'external-local',
  'cluster-0',
  'cluster-65536',
  'cluster-03',
  'cluster--3',
  'cluster-3-affinity-0',
  'cluster-3-affinity-060',
  'cluster-3-affinity-',
  'clusters-3',
  'cluster-3x',
  'x-cluster-3',
  '',
]) {
  test(`'${name}' is not the name of a class`, () => {
    assert.equal(parseClassName(name), undefined);
  });
}

describe('learning from the kernel', () => {
  const id = (text: string): number => {
    const [major = 0, minor = 0] = text.split(':').map((half) => parseInt(half, 16));
    return ((major << 16) | minor) >>> 0;
  };
  type Lesson = [id: string, name: string, believed: boolean];
  const lessons: [what: string, lessons: Lesson[], then: [name: string, id: string][]][] = [
    [
      'without affinity there is only one right number',
      [
        ['1:3', 'cluster-3', true],
        ['1:4', 'cluster-3', false],
        ['9:3', 'cluster-3', false],
      ],
      [],
    ],
    [
      'a pair of kind and timeout keeps its number',
      [['1005:2', 'cluster-2-affinity-600', true]],
      [
        ['cluster-7-affinity-600', '1005:7'],
        ['cluster-7-affinity-60', '1000:7'],
      ],
    ],
    [
      'the same pair under two numbers: the first counts',
      [
        ['1005:2', 'cluster-2-affinity-600', true],
        ['1006:3', 'cluster-3-affinity-600', false],
        ['1005:3', 'cluster-3-affinity-600', true],
      ],
      [],
    ],
    [
      'two pairs under one number: the first counts',
      [
        ['1000:2', 'cluster-2-affinity-600', true],
        ['1000:2', 'external-2-affinity-600', false],
      ],
      [['external-2-affinity-600', '1001:2']],
    ],
    ['a number with another count', [['1000:3', 'cluster-2-affinity-600', false]], []],
    [
      'numbers of other things',
      [
        ['f00:2', 'cluster-2-affinity-600', false],
        ['8000:2', 'cluster-2-affinity-60', false],
      ],
      [],
    ],
    [
      'gaps are filled',
      [
        ['1000:2', 'cluster-2-affinity-1', true],
        ['7fff:2', 'cluster-2-affinity-2', true],
      ],
      [
        ['cluster-2-affinity-3', '1001:2'],
        ['cluster-2-affinity-4', '1002:2'],
      ],
    ],
  ];
  for (const [what, list, then] of lessons) {
    test(what, () => {
      const numbers = new ClassNumbers();
      const parse = (name: string): ServiceClass => {
        const of = parseClassName(name);
        assert.ok(of, name);
        return of;
      };
      for (const [number, name, believed] of list)
        assert.equal(numbers.learn(id(number), parse(name)), believed, `${number} ${name}`);
      for (const [name, number] of then) assert.equal(print(numbers.idOf(parse(name))), number);
    });
  }

  test('a node without a free number says so', () => {
    const numbers = new ClassNumbers();
    for (let major = 0x1000; major < 0x8000; major++) {
      const of = { kind: 'cluster', endpoints: 1, affinitySeconds: major } as const;
      numbers.learn(((major << 16) | 1) >>> 0, of);
      numbers.chainAdded(of);
    }
    assert.throws(
      () => numbers.idOf({ kind: 'cluster', endpoints: 1, affinitySeconds: 1 }),
      /more than 28672 pairs of a kind of address and a session affinity timeout/,
    );
  });

  test('a number is given back with the last chain, and reused as late as possible', () => {
    const numbers = new ClassNumbers();
    const of = (affinitySeconds: number, endpoints = 1) =>
      ({ kind: 'cluster', endpoints, affinitySeconds }) as const;
    for (let seconds = 1; seconds <= 86_400; seconds++) {
      numbers.idOf(of(seconds));
      numbers.chainAdded(of(seconds));
      numbers.chainAdded(of(seconds, 2));
      if (seconds < 3) continue;
      numbers.chainDeleted(of(seconds));
      assert.equal(numbers.idOf(of(seconds)) + 1, numbers.idOf(of(seconds, 2)), 'one chain is left');
      numbers.chainDeleted(of(seconds, 2));
    }
    assert.equal(numbers.idOf(of(1)) >>> 16, 0x1000);
    assert.equal(numbers.idOf(of(2)) >>> 16, 0x1001);
    const id = numbers.idOf(of(3));
    assert.notEqual(id >>> 16, 0x1002, 'reused late');
    numbers.chainAdded(of(3));
    const undo = numbers.chainDeleted(of(3));
    undo();
    assert.equal(numbers.idOf(of(3)), id, 'a transaction that failed');
  });

  test('numbers of which no chain came are given back when they are needed', () => {
    const numbers = new ClassNumbers();
    for (let seconds = 1; seconds <= 86_400; seconds++)
      numbers.idOf({ kind: 'cluster', endpoints: 1, affinitySeconds: seconds });
  });
});
