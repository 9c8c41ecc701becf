/** Reading configuration files: what is odd in them, and what keeps them from being read. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readDocument } from './document.js';
import { ConfigError } from '../errors.js';
import { fileName, fromFlags, fromText, fromYaml, problemsOf } from '../testing/load.js';

describe('unknown and duplicate fields', () => {
  const rows: [yaml: string, ...oddities: string[]][] = [
    [
      'hostnameoverride: x',
      '3: unknown field "hostnameoverride" (did you mean "hostnameOverride"?): it has no effect',
    ],
    [
      'nftables:\n  masqueradeBti: 3',
      '4: unknown field "nftables.masqueradeBti" (did you mean "nftables.masqueradeBit"?): it has no effect',
    ],
    ['Zebra: { a: 1 }', '3: unknown field "Zebra": it has no effect'],
    ['detectLocal: { zebra: x }', '3: unknown field "detectLocal.zebra": it has no effect'],
    [
      'logging: { options: { text: { zebra: x } } }',
      '3: unknown field "logging.options.text.zebra": it has no effect',
    ],
    [
      'logging:\n  vmodule:\n  - filePattern: a\n    pattern: b',
      '6: unknown field "logging.vmodule[0].pattern": it has no effect',
    ],
    [
      'bindAddress: 192.0.2.1\nmode: ""\nbindAddress: 192.0.2.2',
      '5: duplicate field "bindAddress": line 3 sets it already; the last one counts',
    ],
    [
      'conntrack:\n  min: 1\n  min: 2',
      '5: duplicate field "conntrack.min": line 4 sets it already; the last one counts',
    ],
    [
      'conntrack: { min: 1 }\nconntrack: { min: 2 }',
      '4: duplicate field "conntrack": line 3 sets it already; the last one counts',
    ],
    [
      'featureGates:\n  ComponentFlagz: true\n  ComponentFlagz: false',
      '5: duplicate field "featureGates.ComponentFlagz": line 4 sets it already; the last one counts',
    ],
    ['a: 1\nb: 2', '3: unknown field "a": it has no effect', '4: unknown field "b": it has no effect'],
  ];
  for (const [yaml, ...oddities] of rows) {
    const lines = oddities.map((oddity) => `${fileName}:${oddity}`);
    test(`${yaml.replaceAll('\n', ' ⏎ ')}: warnings`, () => {
      assert.deepEqual(fromYaml(yaml).warnings, lines);
    });
    test(`${yaml.replaceAll('\n', ' ⏎ ')}: errors with --strict-config`, () => {
      assert.deepEqual(
        problemsOf(() => fromYaml(yaml, '--strict-config')),
        lines,
      );
    });
  }

  test('the last duplicate counts', () => {
    const config = fromYaml(
      'bindAddress: 192.0.2.1\nbindAddress: 192.0.2.2\nconntrack: { min: 1 }\nconntrack: {}',
    );
    assert.equal(config.bindAddress, '192.0.2.2');
    assert.equal(config.conntrack.min, 131072);
  });

  test('duplicates in JSON', () => {
    const json =
      '{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration",\n"mode":"ipvs",\n"mode":"nftables"}';
    const config = fromText(json);
    assert.equal(config.mode, 'nftables');
    assert.deepEqual(config.warnings, [
      `${fileName}:3: duplicate field "mode": line 2 sets it already; the last one counts`,
    ]);
  });
});

describe('what YAML has', () => {
  test('switches in the words of YAML 1.1, unless quoted', () => {
    assert.equal(fromYaml('bindAddressHardFail: yes').bindAddressHardFail, true);
    assert.equal(fromYaml('bindAddressHardFail: On').bindAddressHardFail, true);
    assert.equal(fromYaml('iptables: { localhostNodePorts: off }').localhostNodePorts, false);
    assert.match(problemsOf(() => fromYaml('bindAddressHardFail: "yes"')).join(), /must be true or false$/);
  });

  test('anchors and aliases', () => {
    const config = fromYaml('conntrack: { udpTimeout: &t 7s, udpStreamTimeout: *t }');
    assert.equal(config.conntrack.udpStreamTimeoutMs, 7000);
  });

  test('a comment, a document mark, and documents after the first, which are not read', () => {
    const config = fromText(
      '# comment\n---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n---\nmode: [\n',
    );
    assert.equal(config.mode, 'ipvs');
  });

  test('sections and fields that are null or empty', () => {
    const config = fromYaml('conntrack: null\nipvs:\niptables: {}\nmode:\nfeatureGates:');
    assert.deepEqual(config.fields, fromFlags().fields);
    assert.deepEqual(config.warnings, []);
  });
});

describe('files that are no configuration', () => {
  const header = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';
  const rows: [what: string, content: string, ...problems: (string | RegExp)[]][] = [
    ['empty', '', /^proxy\.yaml: (the file is empty|must be a map of fields)/],
    ['only a comment', '# x\n', /^proxy\.yaml: (the file is empty|must be a map of fields)/],
    ['a text', 'hello', `${fileName}: must be a map of fields, beginning with apiVersion`],
    ['a list', '- a', `${fileName}: must be a map of fields, beginning with apiVersion`],
    ['not YAML', `${header}a: [`, /^proxy\.yaml:\d+:\d+: /],
    ['a tab', `${header}conntrack:\n\tmin: 1`, /^proxy\.yaml:\d+:\d+: .*[Tt]ab/],
    ['cut JSON', '{"apiVersion": "kubeproxy', /^proxy\.yaml:1:\d+: /],
    [
      'neither version nor kind',
      'mode: ipvs',
      `${fileName}: apiVersion is missing: it must be kubeproxy.config.k8s.io/v1alpha1`,
      `${fileName}: kind is missing: it must be KubeProxyConfiguration`,
    ],
    [
      'a kubeconfig',
      'apiVersion: v1\nkind: Config\nclusters: []',
      `${fileName}:1: apiVersion: "v1": must be kubeproxy.config.k8s.io/v1alpha1`,
      `${fileName}:2: kind: "Config": must be KubeProxyConfiguration`,
    ],
    [
      'a later version',
      'apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration',
      `${fileName}:1: apiVersion: "kubeproxy.config.k8s.io/v1": must be kubeproxy.config.k8s.io/v1alpha1`,
    ],
    [
      'a section that is a text',
      `${header}conntrack: x`,
      `${fileName}:3: conntrack: must have fields of its own`,
    ],
    [
      'a section that is a list',
      `${header}logging:\n  options: []`,
      `${fileName}:4: logging.options: must have fields of its own`,
    ],
    [
      'an alias of nothing',
      `${header}mode: *nope`,
      `${fileName}:3: *nope: there is no such anchor before it`,
    ],
    [
      'anchors in a circle',
      `${header}featureGates: &a { x: *a }`,
      `${fileName}:3: featureGates: the anchors in it can't be followed`,
    ],
    ['a field that is a section', `${header}mode: { a: 1 }`, `${fileName}:3: mode: {"a":1}: must be text`],
  ];
  for (const [what, content, ...expected] of rows) {
    test(what, () => {
      const problems = problemsOf(() => fromText(content));
      assert.equal(problems.length, expected.length, problems.join('\n'));
      expected.forEach((problem, index) => {
        if (typeof problem === 'string') assert.equal(problems[index], problem);
        else assert.match(problems[index] ?? '', problem);
      });
    });
  }
});

test('what is nested too deep is a mistake at its place, whatever the parser would make of it', () => {
  for (const text of ['['.repeat(8000), '? '.repeat(8000), '{"a":'.repeat(8000)]) {
    assert.throws(
      () => readDocument('c.yaml', text),
      (error) =>
        error instanceof ConfigError &&
        /^c\.yaml:1:\d+: nested more than 100 levels deep$/.test(error.problems.join()),
    );
  }
});
