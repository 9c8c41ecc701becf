import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countCPUs } from './cpus.js';
import { FakeFiles } from './testing/fake-files.js';

/** Memory nodes with their processors, as the kernel shows them. */
function machine(nodes: readonly (readonly number[])[], online?: string): FakeFiles {
  const files = new FakeFiles(online === undefined ? {} : { '/sys/devices/system/cpu/online': online });
  for (const [node, cpus] of nodes.entries()) {
    for (const cpu of cpus) {
      const folder = `/sys/devices/system/node/node${node}/cpu${cpu}/topology`;
      files.create(`${folder}/core_id`, String(cpu));
      files.create(`${folder}/physical_package_id`, String(node));
    }
  }
  return files;
}

const scheduler = (): number => 7;

const cases: readonly [name: string, files: FakeFiles, expected: number][] = [
  ['one node', machine([[0, 1, 2, 3]], '0-3'), 4],
  [
    'two nodes',
    machine(
      [
        [0, 1],
        [2, 3, 4],
      ],
      '0-4',
    ),
    5,
  ],
  ['some are offline', machine([[0, 1, 2, 3, 4, 5]], '0-1,4'), 3],
  ['no list of those online: all are', machine([[0, 1]]), 2],
  [
    'other entries of a node do not count',
    (() => {
      const files = machine([[0]], '0');
      files.create('/sys/devices/system/node/node0/cpumap', '1');
      files.create('/sys/devices/system/node/node0/cpulist', '0');
      files.create('/sys/devices/system/node/online', '0');
      return files;
    })(),
    1,
  ],
  [
    'no nodes: the processors that exist',
    new FakeFiles({
      '/sys/devices/system/cpu/cpu0/online': '1',
      '/sys/devices/system/cpu/cpu11/online': '0',
      '/sys/devices/system/cpu/cpufreq/policy0': '',
    }),
    2,
  ],
  ['nothing can be read: what the scheduler grants', new FakeFiles(), 7],
  ['a node without a described processor: the same', machine([[]], '0'), 7],
];

for (const [name, files, expected] of cases) {
  test(name, () => {
    assert.equal(countCPUs(files, scheduler), expected);
  });
}

test('this machine has processors', () => {
  assert.ok(countCPUs() >= 1);
});
