/** The grammar of the command line, and every flag. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from './errors.js';
import { flags, helpText, parseDuration, parseFlags } from './flags.js';

const grammar: [args: string[], expected: Record<string, string | string[]>][] = [
  [[], {}],
  [['--kubeconfig=/a'], { kubeconfig: '/a' }],
  [['--kubeconfig', '/a'], { kubeconfig: '/a' }],
  [['--kubeconfig='], { kubeconfig: '' }],
  [['--hostname_override=n_1'], { 'hostname-override': 'n_1' }],
  [['--hostname_override', '--x'], { 'hostname-override': '--x' }],
  [['--kubeconfig=a=b'], { kubeconfig: 'a=b' }],
  [['--masquerade-all'], { 'masquerade-all': 'true' }],
  [['--masquerade-all=false'], { 'masquerade-all': 'false' }],
  [['-v4'], { v: '4' }],
  [['-v', '4'], { v: '4' }],
  [['-v=4'], { v: '4' }],
  [['--v', '4'], { v: '4' }],
  [['--v=4', '--v=6'], { v: '6' }],
  [['-h'], { help: 'true' }],
  [['--cluster-cidr=a,b'], { 'cluster-cidr': ['a', 'b'] }],
  [['--cluster-cidr=a', '--cluster-cidr=b'], { 'cluster-cidr': ['a', 'b'] }],
  [['--cluster-cidr='], { 'cluster-cidr': [] }],
  [['--feature-gates=A=true,B=false'], { 'feature-gates': ['A=true', 'B=false'] }],
  [[''], {}],
  ...['1', 't', 'T', 'TRUE', 'true', 'True'].map((word): [string[], Record<string, string>] => [
    [`--cleanup=${word}`],
    { cleanup: 'true' },
  ]),
  ...['0', 'f', 'F', 'FALSE', 'false', 'False'].map((word): [string[], Record<string, string>] => [
    [`--cleanup=${word}`],
    { cleanup: 'false' },
  ]),
];
for (const [args, expected] of grammar) {
  test(`'${args.join(' ')}'`, () => {
    assert.deepEqual(Object.fromEntries(parseFlags(args)), expected);
  });
}

const refused: [args: string[], message: string | RegExp][] = [
  [['--nope'], /^unknown flag: --nope/],
  [['--nope=1'], /^unknown flag: --nope/],
  [['--zzzzzzzzzzzz'], 'unknown flag: --zzzzzzzzzzzz (kube-proxy --help lists the flags)'],
  [['--kubeconfg=x'], 'unknown flag: --kubeconfg (did you mean --kubeconfig?)'],
  [['--proxy_mod', 'x'], 'unknown flag: --proxy-mod (did you mean --proxy-mode?)'],
  [['-x'], "unknown shorthand flag: 'x' in -x"],
  [['--kubeconfig'], 'flag needs an argument: --kubeconfig'],
  [['-v'], 'flag needs an argument: -v'],
  [['--v=many'], 'invalid argument "many" for "--v" flag: must be a number from 0 to 999999999'],
  [['--v=-1'], /^invalid argument "-1" for "--v" flag/],
  [['--cleanup=yes'], 'invalid argument "yes" for "--cleanup" flag: must be true or false'],
  [
    ['--startup-timeout=30'],
    'invalid argument "30" for "--startup-timeout" flag: must be a duration such as 300ms, 5s or 1m30s',
  ],
  [['run'], '"kube-proxy" takes no arguments, only flags, but got "run"'],
  [['--cleanup', 'true'], '"kube-proxy" takes no arguments, only flags, but got "true"'],
];
for (const [args, message] of refused) {
  test(`'${args.join(' ')}' is refused`, () => {
    assert.throws(
      () => parseFlags(args),
      (error) => {
        assert.ok(error instanceof UsageError);
        assert.equal(error.code, 'USAGE');
        if (typeof message === 'string') assert.equal(error.message, message);
        else assert.match(error.message, message);
        return true;
      },
    );
  });
}

const sample = { string: 'x', bool: 'true', int: '3', duration: '5s', strings: 'x', map: 'x=true' } as const;
for (const flag of flags) {
  test(`--${flag.name} is accepted, and explained in --help`, () => {
    assert.ok(parseFlags([`--${flag.name}=${sample[flag.type]}`]).has(flag.name));
    assert.ok(helpText().includes(`--${flag.name}`));
    assert.ok(flag.help.endsWith('.'), 'a sentence');
  });
}

test('flags are in the order of the alphabet', () => {
  const names = flags.map(({ name }) => name);
  assert.deepEqual(names, [...names].sort());
});

const durations: [text: string, ms: number | undefined][] = [
  ['0', 0],
  ['0s', 0],
  ['300ms', 300],
  ['5s', 5000],
  ['1m30s', 90_000],
  ['2h22m', 8_520_000],
  ['1.5s', 1500],
  ['1.s', 1000],
  ['.5s', 500],
  ['1us', 0.001],
  ['1µs', 0.001],
  ['1ns', 0.000001],
  ['30', undefined],
  ['', undefined],
  ['s', undefined],
  ['.s', undefined],
  ['-5s', undefined],
  ['5 s', undefined],
  ['5d', undefined],
];
for (const [text, ms] of durations) {
  test(`duration '${text}': ${ms ?? 'none'}`, () => {
    assert.equal(parseDuration(text), ms);
  });
}
