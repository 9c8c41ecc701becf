import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from '../config/errors.js';
import { splitArguments } from './command-arguments.js';

const flags = {
  namespace: { short: 'n', argument: 'NAME', help: '' },
  output: { short: 'o', argument: 'text|json', choice: ['text', 'json'], help: '' },
  help: { short: 'h', help: '' },
} as const;

const cases: readonly [args: readonly string[], own: object, rest: readonly string[]][] = [
  [[], {}, []],
  [['--namespace=shop', '--config=/etc/kp.conf'], { namespace: 'shop' }, ['--config=/etc/kp.conf']],
  [['--kubeconfig', '/etc/kc', '--namespace', 'shop'], { namespace: 'shop' }, ['--kubeconfig', '/etc/kc']],
  [['-n', 'shop', '-v', '4'], { namespace: 'shop' }, ['-v', '4']],
  [['-nshop', '-ojson', '-h'], { namespace: 'shop', output: 'json', help: 'true' }, []],
  [['--namespace='], { namespace: '' }, []],
  [['--namespaces=x', 'word'], {}, ['--namespaces=x', 'word']],
];

for (const [args, own, rest] of cases) {
  test(`kube-proxy COMMAND ${args.join(' ')}`, () => {
    assert.deepEqual(splitArguments(args, flags), { own, rest });
  });
}

test('what is wrong is told', () => {
  const problem = (...args: string[]): string[] => {
    try {
      splitArguments(args, flags);
    } catch (error) {
      if (error instanceof ConfigError) return [...error.problems];
      throw error;
    }
    return [];
  };
  assert.deepEqual(problem('-o', 'yaml'), [
    'invalid argument "yaml" for "--output" flag: must be text or json',
  ]);
  assert.deepEqual(problem('--namespace'), ['flag needs an argument: --namespace']);
});
