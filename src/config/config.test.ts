/** Whole configurations: files as they are found in clusters, what follows from a mode, files and flags together. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { stringify } from 'yaml';
import { compareConfigs } from './file/compare.js';
import type { Config } from './config.js';
import { featureGates } from './values/feature-gates.js';
import { fieldPaths, type FieldPath } from './fields.js';
import {
  documentOf,
  fromFields,
  fromFlags,
  fromText,
  fromYaml,
  fileName,
  problemsOf,
} from './testing/load.js';
import { kubeadmConfig } from './testing/kubeadm.js';
import { upstreamDefault } from './testing/upstream-default.js';
import type { Json } from './values/values.js';
import { configYaml, configz, versionedConfig } from './file/versioned.js';

/** A configuration without what tells that it came from a file. */
const meaning = ({ configFile: _file, flags: _flags, ...config }: Config): object => config;

/** Every field, with a value that is not its default. */
const everything: Readonly<Record<FieldPath, Json>> = {
  featureGates: { AllowServiceExternalIPs: false, LoggingAlphaOptions: true },
  'clientConnection.kubeconfig': '/etc/kubeconfig',
  'clientConnection.acceptContentTypes': 'application/json',
  'clientConnection.contentType': 'application/json',
  'clientConnection.qps': 7.5,
  'clientConnection.burst': 11,
  'logging.format': 'text',
  'logging.flushFrequency': '7s',
  'logging.verbosity': 3,
  'logging.vmodule': [{ filePattern: 'sync*', verbosity: 6 }],
  'logging.options.text.splitStream': true,
  'logging.options.text.infoBufferSize': '4096',
  'logging.options.json.splitStream': true,
  'logging.options.json.infoBufferSize': '8192',
  hostnameOverride: 'alder',
  bindAddress: '192.0.2.1',
  healthzBindAddress: '192.0.2.1:1',
  metricsBindAddress: '192.0.2.1:2',
  bindAddressHardFail: true,
  enableProfiling: true,
  showHiddenMetricsForVersion: '1.35',
  mode: 'ipvs',
  'iptables.masqueradeBit': 3,
  'iptables.masqueradeAll': true,
  'iptables.localhostNodePorts': false,
  'iptables.syncPeriod': '40s',
  'iptables.minSyncPeriod': '2s',
  'ipvs.syncPeriod': '50s',
  'ipvs.minSyncPeriod': '3s',
  'ipvs.scheduler': 'lc',
  'ipvs.excludeCIDRs': ['10.9.0.0/16'],
  'ipvs.strictARP': true,
  'ipvs.tcpTimeout': '1h0m0s',
  'ipvs.tcpFinTimeout': '1m0s',
  'ipvs.udpTimeout': '2m0s',
  'nftables.masqueradeBit': 4,
  'nftables.masqueradeAll': true,
  'nftables.syncPeriod': '1m0s',
  'nftables.minSyncPeriod': '4s',
  'winkernel.networkName': 'net',
  'winkernel.sourceVip': '192.0.2.2',
  'winkernel.enableDSR': true,
  'winkernel.rootHnsEndpointName': 'cbr0',
  'winkernel.forwardHealthCheckVip': true,
  detectLocalMode: 'BridgeInterface',
  'detectLocal.bridgeInterface': 'cni0',
  'detectLocal.interfaceNamePrefix': 'veth',
  clusterCIDR: '10.244.0.0/16,fd00::/48',
  nodePortAddresses: ['10.0.0.0/8'],
  oomScoreAdj: -500,
  'conntrack.maxPerCore': 1,
  'conntrack.min': 2,
  'conntrack.tcpEstablishedTimeout': '3h0m0s',
  'conntrack.tcpCloseWaitTimeout': '4h0m0s',
  'conntrack.tcpBeLiberal': true,
  'conntrack.udpTimeout': '5s',
  'conntrack.udpStreamTimeout': '6s',
  configSyncPeriod: '20m0s',
  portRange: '1-2',
  windowsRunAsService: true,
};

describe('files as they are found', () => {
  test('what kubeadm writes: the defaults, and no warning', () => {
    const config = fromText(kubeadmConfig);
    assert.deepEqual(config.warnings, []);
    assert.deepEqual(
      meaning(config),
      meaning(fromFlags('--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf', '--cluster-cidr=10.244.0.0/16')),
    );
    assert.deepEqual(meaning(fromText(kubeadmConfig, '--strict-config')), {
      ...meaning(config),
      strictConfig: true,
    });
  });

  test("upstream's default file", () => {
    const config = fromText(upstreamDefault);
    assert.deepEqual(config.warnings, []);
    assert.deepEqual(
      meaning(config),
      meaning(fromFlags('--proxy-mode=iptables', '--iptables-min-sync-period=1s')),
    );
    assert.equal(configYaml(config), upstreamDefault, 'and writing it gives the same file');
  });

  test('every field set', () => {
    const config = fromFields(everything);
    assert.deepEqual(config.warnings, [
      'feature gate AllowServiceExternalIPs is generally available: a later version will refuse its name',
    ]);
    const written = versionedConfig(config.fields);
    const cleared = {
      'iptables.syncPeriod': '0s',
      'iptables.minSyncPeriod': '0s',
      'nftables.syncPeriod': '0s',
      'nftables.minSyncPeriod': '0s',
      'nftables.masqueradeAll': false,
      portRange: '',
    };
    assert.deepEqual(written, documentOf({ ...everything, ...cleared }));
  });

  test('an empty document: the same as no flags', () => {
    assert.deepEqual(meaning(fromFields({})), meaning(fromFlags()));
  });
});

describe('what follows from the mode', () => {
  const localhost = 'iptables.localhostNodePorts';
  const rows: [what: string, config: () => Config, meaning: Partial<Config>][] = [
    [
      'automatic: the reach and the settings of iptables',
      () => fromFields({ 'iptables.masqueradeAll': true, 'iptables.masqueradeBit': 3 }),
      { nodePortAddresses: [], localhostNodePorts: true, masqueradeAll: true, masqueradeBit: 3 },
    ],
    [
      'automatic: not the settings of nftables',
      () =>
        fromFields({
          'nftables.masqueradeAll': true,
          'nftables.syncPeriod': '1m',
          'nftables.masqueradeBit': 3,
        }),
      { masqueradeAll: false, syncPeriodMs: 30_000, masqueradeBit: 14 },
    ],
    [
      'nftables: primary addresses, no loopback, its own settings',
      () =>
        fromFields({
          mode: 'nftables',
          'nftables.syncPeriod': '1m',
          'iptables.syncPeriod': '2m',
          'iptables.masqueradeAll': true,
        }),
      {
        nodePortAddresses: ['primary'],
        localhostNodePorts: undefined,
        syncPeriodMs: 60_000,
        masqueradeAll: false,
      },
    ],
    [
      'nftables: loopback where it is set',
      () => fromFields({ mode: 'nftables', [localhost]: true, nodePortAddresses: ['127.0.0.0/8'] }),
      { nodePortAddresses: ['127.0.0.0/8'], localhostNodePorts: true },
    ],
    [
      'nftables by flags: those of iptables, but the bit',
      () =>
        fromFlags(
          '--proxy-mode=nftables',
          '--iptables-sync-period=1m',
          '--iptables-min-sync-period=1s',
          '--masquerade-all',
          '--iptables-masquerade-bit=3',
          '--iptables-localhost-nodeports=false',
        ),
      {
        syncPeriodMs: 60_000,
        minSyncPeriodMs: 1000,
        masqueradeAll: true,
        masqueradeBit: 14,
        localhostNodePorts: false,
      },
    ],
    [
      'ipvs: its own periods, marks as iptables',
      () =>
        fromFlags(
          '--proxy-mode=ipvs',
          '--iptables-sync-period=1m',
          '--ipvs-sync-period=2m',
          '--masquerade-all',
          '--iptables-masquerade-bit=3',
        ),
      {
        nodePortAddresses: [],
        localhostNodePorts: undefined,
        syncPeriodMs: 120_000,
        masqueradeAll: true,
        masqueradeBit: 3,
      },
    ],
    [
      'ipvs flags in another mode: nothing',
      () => fromFlags('--ipvs-sync-period=2m', '--ipvs-min-sync-period=1m'),
      { syncPeriodMs: 30_000, minSyncPeriodMs: 10 },
    ],
  ];
  for (const [what, load, expected] of rows) {
    test(what, () => {
      const config = load();
      const actual = Object.fromEntries(
        Object.keys(expected).map((key) => [key, config[key as keyof Config]]),
      );
      assert.deepEqual(actual, expected);
    });
  }

  test('what is wrong in the settings of another mode is only a warning', () => {
    const config = fromYaml(
      'ipvs: { excludeCIDRs: [x] }\nnftables: { masqueradeBit: 99 }\ndetectLocalMode: NodeCIDR\nclusterCIDR: y',
    );
    assert.deepEqual(config.warnings, [
      `${fileName}:3: ipvs.excludeCIDRs[0]: "x": must be a CIDR such as 192.0.2.0/24; not used while mode is empty, which follows the settings of iptables`,
      `${fileName}:4: nftables.masqueradeBit: 99: must be from 0 to 31; not used while mode is empty, which follows the settings of iptables`,
      `${fileName}:6: clusterCIDR: "y": must be a CIDR such as 10.244.0.0/16, but "y" is not; not used in local mode NodeCIDR`,
    ]);
  });
});

describe('addresses', () => {
  test('a document with an IPv6 bind address moves the servers to IPv6, a flag does not', () => {
    const config = fromFields({ bindAddress: '::' });
    assert.deepEqual(config.healthzBindAddress, { host: '::', port: 10256 });
    assert.deepEqual(config.metricsBindAddress, { host: '::1', port: 10249 });
    const set = fromFields({ bindAddress: '::', healthzBindAddress: '0.0.0.0' });
    assert.deepEqual(set.healthzBindAddress, { host: '0.0.0.0', port: 10256 });
    assert.deepEqual(fromFlags('--bind-address=::').healthzBindAddress, { host: '0.0.0.0', port: 10256 });
  });

  test('the deprecated ports: for an address without one', () => {
    const config = fromFlags(
      '--healthz-bind-address=fd00::5',
      '--healthz-port=9999',
      '--metrics-bind-address=0.0.0.0',
      '--metrics-port=9998',
    );
    assert.deepEqual(config.healthzBindAddress, { host: 'fd00::5', port: 9999 });
    assert.deepEqual(config.metricsBindAddress, { host: '0.0.0.0', port: 9998 });
    assert.deepEqual(config.warnings, []);
  });

  test('a deprecated port without effect is told', () => {
    assert.deepEqual(fromFlags('--healthz-port=9999').warnings, [
      '--healthz-port=9999 has no effect: the port is that of --healthz-bind-address, 0.0.0.0:10256',
    ]);
    assert.deepEqual(fromFlags('--healthz-port=10256', '--metrics-port=0').warnings, []);
  });
});

describe('a file and flags', () => {
  test('some flags count beside a file, the others are named as ignored', () => {
    const config = fromYaml(
      'hostnameOverride: birch\nlogging: { verbosity: 2, format: text, vmodule: [{ filePattern: a, verbosity: 1 }] }\nclusterCIDR: 10.0.0.0/8',
      '--hostname-override=Alder',
      '--v=5',
      '--vmodule=b=2',
      '--master=https://x',
      '--manifests=/m',
      '--startup-timeout=5s',
      '--full-check-period=10m',
      '--first-services=a/b',
      '--state-file=/s',
      '--init-only',
      '--cleanup',
      '--cluster-cidr=10.9.0.0/16',
      '--masquerade-all',
      '--healthz-port=0',
    );
    const { nodeName, logging, client, manifests, startupTimeoutMs, stateFile, initOnly, cleanup } = config;
    const { fullCheckPeriodMs, firstServices } = config;
    assert.deepEqual(
      {
        nodeName,
        manifests,
        startupTimeoutMs,
        fullCheckPeriodMs,
        firstServices,
        stateFile,
        initOnly,
        cleanup,
        master: client.master,
      },
      {
        nodeName: 'alder',
        manifests: '/m',
        startupTimeoutMs: 5000,
        fullCheckPeriodMs: 600_000,
        firstServices: ['a/b'],
        stateFile: '/s',
        initOnly: true,
        cleanup: true,
        master: 'https://x',
      },
    );
    assert.equal(logging.verbosity, 5);
    assert.deepEqual(logging.vmodule, [
      { filePattern: 'b', verbosity: 2 },
      { filePattern: 'a', verbosity: 1 },
    ]);
    assert.deepEqual(config.clusterCIDRs, ['10.0.0.0/8']);
    assert.deepEqual(config.healthzBindAddress, { host: '0.0.0.0', port: 10256 });
    assert.deepEqual(config.warnings, [
      '--config replaces the settings made by flags: --cluster-cidr, --masquerade-all, --healthz-port ignored',
    ]);
  });

  test('a wrong logging flag is named as the flag', () => {
    assert.deepEqual(
      problemsOf(() => fromYaml('logging: { format: json }', '--vmodule=a=1')),
      ['--vmodule: [{"filePattern":"a","verbosity":1}]: must be empty with a log format other than text'],
    );
  });
});

describe('settings that do not go together', () => {
  const rows: [load: () => Config, problem: string][] = [
    [
      () => fromFlags('--logging-format=json', '--feature-gates=LoggingBetaOptions=false'),
      '--logging-format: "json": must be text while the feature gate LoggingBetaOptions is off',
    ],
    [
      () => fromFlags('--log-text-split-stream'),
      '--log-text-split-stream: true: must not be set while the feature gate LoggingAlphaOptions is off',
    ],
    [
      () => fromYaml('logging:\n  options:\n    json:\n      infoBufferSize: 1Ki'),
      `${fileName}:6: logging.options.json.infoBufferSize: 1024: must not be set while the feature gate LoggingAlphaOptions is off`,
    ],
    [
      () => fromYaml('mode: nftables\nnftables:\n  minSyncPeriod: 2s\n  syncPeriod: 1s'),
      `${fileName}:5: nftables.minSyncPeriod: "2s": must not be greater than ${fileName}:6: nftables.syncPeriod (1s)`,
    ],
  ];
  for (const [load, problem] of rows) {
    test(problem, () => {
      assert.deepEqual(problemsOf(load), [problem]);
    });
  }

  test('all that is wrong is told at once: command line, types and limits', () => {
    const problems = problemsOf(() =>
      fromYaml(
        'bindAddress: x\noomScoreAdj: many\nconntrack:\n  min: -1\nmode: magic\nfeatureGates: { Magic: true }',
        '--v=many',
        '--nope',
      ),
    );
    assert.deepEqual(
      problems.map((problem) => problem.replace(/: must.*| \(.*/, '')),
      [
        'invalid argument "many" for "--v" flag',
        'unknown flag: --nope',
        `${fileName}:4: oomScoreAdj: "many"`,
        `${fileName}:3: bindAddress: "x"`,
        `${fileName}:6: conntrack.min: -1`,
        `${fileName}:7: mode: "magic"`,
        `${fileName}:8: featureGates: "Magic=true": Magic is not a feature gate of Kubernetes v1.37`,
      ],
    );
  });
});

describe('written and read back', () => {
  const samples: Record<string, () => Config> = {
    defaults: () => fromFlags(),
    kubeadm: () => fromText(kubeadmConfig),
    everything: () => fromFields(everything),
    nftables: () => fromFlags('--proxy-mode=nftables', '--nodeport-addresses=10.0.0.0/8,::/0'),
    'nftables with loopback': () => fromFlags('--proxy-mode=nftables', '--iptables-localhost-nodeports'),
    'no servers': () => fromFlags('--healthz-port=0', '--metrics-bind-address=0'),
    'no pause': () => fromFlags('--iptables-min-sync-period=0'),
    'IPv6 by flags': () => fromFlags('--bind-address=fd00::1', '--healthz-bind-address=::1'),
    'words that YAML reads otherwise': () =>
      fromFlags('--hostname-override=no', '--kubeconfig=0x10', '--pod-bridge-interface=~'),
    zeros: () => fromFlags('--oom-score-adj=0', '--conntrack-min=0', '--iptables-masquerade-bit=0'),
  };
  for (const [name, load] of Object.entries(samples)) {
    test(name, () => {
      const config = load();
      const written = configYaml(config);
      const back = fromText(written, '--strict-config');
      assert.deepEqual(back.fields, config.fields);
      assert.deepEqual(compareConfigs(config, back).changes, []);
      assert.equal(configYaml(back), written);
      assert.deepEqual(
        { ...meaning(back), strictConfig: false, warnings: [] },
        { ...meaning(config), warnings: [] },
      );
    });
  }

  test('keys are sorted at every level', () => {
    const keys = configYaml(fromFields(everything))
      .split('\n')
      .filter((line) => /^\w/.test(line))
      .map((line) => line.split(':')[0] ?? '');
    assert.deepEqual(keys, [...keys].sort());
    assert.equal(new Set(keys).size, keys.length);
  });

  test('an empty mode stays empty', () => {
    assert.match(configYaml(fromFlags()), /^mode: ""$/m);
  });
});

test('/configz: one member, compact, in the order of the declaration', () => {
  const text = configz(fromFlags('--proxy-mode=nftables'));
  assert.ok(text.startsWith('{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration","apiVersion":'));
  const order = [
    ...text.matchAll(
      /"(clientConnection|logging|hostnameOverride|mode|iptables|ipvs|nftables|winkernel|detectLocal|conntrack|portRange)":/g,
    ),
  ].map(([, name]) => name);
  assert.deepEqual(order, [
    'clientConnection',
    'logging',
    'hostnameOverride',
    'mode',
    'iptables',
    'ipvs',
    'nftables',
    'winkernel',
    'detectLocal',
    'conntrack',
    'portRange',
  ]);
  const { 'kubeproxy.config.k8s.io': body } = JSON.parse(text) as Record<string, Record<string, unknown>>;
  assert.deepEqual(body?.['nodePortAddresses'], ['primary']);
  assert.deepEqual(body['nftables'], {
    masqueradeBit: 14,
    masqueradeAll: false,
    syncPeriod: '30s',
    minSyncPeriod: '10ms',
  });
  assert.equal(body['featureGates'], undefined);
  assert.equal(body['windowsRunAsService'], undefined);
});

test('the sample with every field has every field', () => {
  assert.deepEqual(Object.keys(everything), fieldPaths);
  assert.ok(stringify(documentOf(everything)).length > 0);
});

describe('v1.37', () => {
  const every = { ...Object.fromEntries([...featureGates].map(([name, gate]) => [name, gate.default])) };

  test('a configuration with all its gates and a mix of keywords and CIDRs', () => {
    const document = {
      mode: 'nftables',
      nodePortAddresses: ['primary', 'localhost', '10.0.0.0/8'],
      featureGates: every,
    };
    const config = fromFields(document);
    assert.deepEqual(config.nodePortAddresses, ['primary', 'localhost', '10.0.0.0/8']);
    assert.equal(config.kubernetesVersion, 'v1.37.2');
    assert.equal(Object.keys(config.gates).length, 254);
  });

  test('mode ipvs is refused while its gate is off', () => {
    const gate = (on: boolean): string => `mode: ipvs\nfeatureGates: { KubeProxyIPVS: ${on} }`;
    assert.equal(fromYaml(gate(true)).mode, 'ipvs');
    assert.equal(fromYaml(gate(false).replace('ipvs', 'nftables')).mode, 'nftables');
    const problems = problemsOf(() => fromYaml(gate(false)));
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /mode: "ipvs": must be iptables, nftables or blank \(blank means/);
  });
});
