/** The grammar of the command line. Every flag's values: settings.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flagValues, parseCommandLine } from './command-line.js';
import { flags } from './flags.js';
import { helpText } from './help.js';

const grammar: [args: string[], expected: Record<string, unknown>][] = [
  [[], {}],
  [[''], {}],
  [['--kubeconfig=/a'], { kubeconfig: '/a' }],
  [['--kubeconfig', '/a'], { kubeconfig: '/a' }],
  [['--kubeconfig='], { kubeconfig: '' }],
  [['--kubeconfig', ''], { kubeconfig: '' }],
  [['--hostname_override=n_1'], { 'hostname-override': 'n_1' }],
  [['--hostname_override', '--x'], { 'hostname-override': '--x' }],
  [['--kubeconfig=a=b'], { kubeconfig: 'a=b' }],
  [['--masquerade-all'], { 'masquerade-all': true }],
  [['--masquerade_all=false'], { 'masquerade-all': false }],
  [['--masquerade-all', '--kubeconfig', 'x'], { 'masquerade-all': true, kubeconfig: 'x' }],
  [['-v4'], { v: 4 }],
  [['-v', '4'], { v: 4 }],
  [['-v=4'], { v: 4 }],
  [['--v', '4'], { v: 4 }],
  [['--v=4', '--v=6'], { v: 6 }],
  [['-hv4'], { help: true, v: 4 }],
  [['-h'], { help: true }],
  [['--version'], { version: 'true' }],
  [['--version=raw'], { version: 'raw' }],
  [['--nodeport-addresses=a,b'], { 'nodeport-addresses': ['a', 'b'] }],
  [['--nodeport-addresses=a', '--nodeport-addresses=b'], { 'nodeport-addresses': ['a', 'b'] }],
  [['--nodeport-addresses="a,b",c'], { 'nodeport-addresses': ['a,b', 'c'] }],
  [['--nodeport-addresses="a""b"'], { 'nodeport-addresses': ['a"b'] }],
  [['--nodeport-addresses=a,'], { 'nodeport-addresses': ['a', ''] }],
  [['--nodeport-addresses='], { 'nodeport-addresses': [] }],
  [['--cluster-cidr=a', '--cluster-cidr=b'], { 'cluster-cidr': 'b' }],
  [['--feature-gates=A=true,B=0', '--feature-gates=A=false'], { 'feature-gates': { A: false, B: false } }],
  [['--feature-gates= A = true '], { 'feature-gates': { A: true } }],
  [['--vmodule=a=1', '--vmodule=b=2'], { vmodule: [{ filePattern: 'b', verbosity: 2 }] }],
  [['--config-sync-period=2h22m'], { 'config-sync-period': 8_520_000 }],
  [['--conntrack-min=0b101', '--oom-score-adj', '-10'], { 'conntrack-min': 5, 'oom-score-adj': -10 }],
  [['--', ''], {}],
];
for (const [args, expected] of grammar) {
  test(`'${args.join(' ')}'`, () => {
    const { given, problems } = parseCommandLine(args);
    assert.deepEqual(Object.fromEntries(given), expected);
    assert.deepEqual(problems, []);
  });
}

const refused: [args: string[], ...problems: (string | RegExp)[]][] = [
  [['--nope'], /^unknown flag: --nope/],
  [['--nope=1'], /^unknown flag: --nope/],
  [['--zzzzzzzzzzzz'], 'unknown flag: --zzzzzzzzzzzz (kube-proxy --help lists the flags)'],
  [['--kubeconfg=x'], 'unknown flag: --kubeconfg (did you mean --kubeconfig?)'],
  [['--proxy_mod', 'x'], 'unknown flag: --proxy-mod (did you mean --proxy-mode?)'],
  [['-x'], "unknown shorthand flag: 'x' in -x"],
  [['-hx'], "unknown shorthand flag: 'x' in -hx"],
  [['--kubeconfig'], 'flag needs an argument: --kubeconfig'],
  [['-v'], "flag needs an argument: 'v' in -v"],
  [['--v=many'], 'invalid argument "many" for "--v" flag: must be a number from 0 to 2147483647'],
  [['-vmany'], 'invalid argument "many" for "--v" flag: must be a number from 0 to 2147483647'],
  [['--cleanup=yes'], 'invalid argument "yes" for "--cleanup" flag: must be true or false'],
  [
    ['--startup-timeout=30'],
    'invalid argument "30" for "--startup-timeout" flag: must be a duration such as 300ms, 5s or 1m30s',
  ],
  [['run'], '"kube-proxy" takes no arguments, only flags, but got "run"'],
  [['--cleanup', 'true', 'x'], '"kube-proxy" takes no arguments, only flags, but got "true" "x"'],
  [['--', '--cleanup'], '"kube-proxy" takes no arguments, only flags, but got "--cleanup"'],
  [['-'], '"kube-proxy" takes no arguments, only flags, but got "-"'],
  [['--logtostderr', '--v=x', 'y'], /^unknown flag: --logtostderr/, /^invalid argument "x"/, /"y"$/],
  [['--windows-service'], /^unknown flag: --windows-service/],
];
for (const [args, ...expected] of refused) {
  test(`'${args.join(' ')}' is refused`, () => {
    const { problems } = parseCommandLine(args);
    assert.equal(problems.length, expected.length, problems.join('\n'));
    expected.forEach((problem, index) => {
      if (typeof problem === 'string') assert.equal(problems[index], problem);
      else assert.match(problems[index] ?? '', problem);
    });
  });
}

test('deprecated flags are told once, still work, and are not in --help', () => {
  const { deprecations, control } = parseCommandLine(['--healthz-port=1', '--healthz_port=2']);
  assert.deepEqual(deprecations, [
    'Flag --healthz-port has been deprecated, use --healthz-bind-address instead',
  ]);
  assert.equal(control['healthz-port'], 2);
  assert.ok(!helpText().includes('--healthz-port'));
});

test('a command names its own help', () => {
  assert.deepEqual(parseCommandLine(['--bogus', '-v=1', 'foo'], 'kube-proxy ipvs').problems, [
    'unknown flag: --bogus (kube-proxy ipvs --help lists the flags)',
    '"kube-proxy ipvs" takes no arguments, only flags, but got "foo"',
  ]);
});

test('flags that v1.37 has removed are accepted with a warning, and are not among those that --config replaces', () => {
  const args = ['--boot-id-file=/b', '--machine-id-file', '/m'];
  const { deprecations, problems } = parseCommandLine(args);
  assert.deepEqual(problems, []);
  assert.deepEqual(deprecations, [
    'Flag --boot-id-file has been deprecated, it has no effect, and v1.37 has removed it',
    'Flag --machine-id-file has been deprecated, it has no effect, and v1.37 has removed it',
  ]);
  assert.equal(flags.get('boot-id-file')?.besideConfig, true);
});

test('--help explains every flag that is not deprecated', () => {
  const text = helpText();
  for (const [name, { deprecated }] of flags) {
    if (deprecated === undefined) assert.match(text, new RegExp(`^  (-., |    )--${name}( |$)`, 'm'));
  }
  assert.ok(text.split('\n').every((line) => line.length <= 120));
});

test('/flagz shows every flag: the values given, and defaults', () => {
  const values = flagValues(
    parseCommandLine([
      '--nodeport-addresses=a,b',
      '--feature-gates=B=true,A=false',
      '--config-sync-period=90s',
      '--v=2',
      '--cleanup',
    ]),
  );
  assert.deepEqual(Object.keys(values), [...flags.keys()]);
  const some = [
    'nodeport-addresses',
    'feature-gates',
    'config-sync-period',
    'v',
    'cleanup',
    'ipvs-exclude-cidrs',
    'help',
    'version',
    'iptables-localhost-nodeports',
  ];
  assert.deepEqual(
    some.map((name) => values[name]),
    ['[a,b]', 'A=false,B=true', '1m30s', '2', 'true', '[]', 'false', 'false', 'true'],
  );
});
