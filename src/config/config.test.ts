/** Settings from flags and from KubeProxyConfiguration files: what they mean, defaults, and every refusal. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { loadConfig, type Config } from './config.js';
import { ConfigError } from './errors.js';
import { parseFlags } from './flags.js';

const folder = mkdtempSync(join(tmpdir(), 'kpp-config-'));
after(() => {
  rmSync(folder, { recursive: true, force: true });
});
let files = 0;
function file(content: string): string {
  const path = join(folder, `config-${files++}.yaml`);
  writeFileSync(path, content);
  return path;
}

const fromFlags = (...args: string[]): Config => loadConfig(parseFlags(args));
const header = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';
const fromFile = (content: string, ...args: string[]): Config =>
  fromFlags(`--config=${file(header + content)}`, ...args);

const defaults = fromFlags();
const client = (set: Partial<Config['client']>): Partial<Config> => ({
  client: { ...defaults.client, ...set },
});
const logging = (set: Partial<Config['logging']>): Partial<Config> => ({
  logging: { ...defaults.logging, ...set },
});
/** What differs from flags by its nature. */
const plain = ({ configFile: _, ...config }: Config): Omit<Config, 'configFile'> => config;
test('without flags: the defaults', () => {
  const { nodeName, mode, nodePortAddresses, syncPeriodMs, minSyncPeriodMs } = defaults;
  assert.deepEqual(
    { nodeName, mode, nodePortAddresses, syncPeriodMs, minSyncPeriodMs },
    {
      nodeName: hostname().trim().toLowerCase(),
      mode: '',
      nodePortAddresses: [],
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 10,
    },
  );
});

test('an empty file: the same defaults', () => {
  assert.deepEqual(plain(fromFile('')), plain(defaults));
});

/** flag, the same setting in the file (if there is one), what it means. */
const settings: [flag: string, field: string | undefined, meaning: Partial<Config>][] = [
  ['--bind-address=192.0.2.1', 'bindAddress: 192.0.2.1', { bindAddress: '192.0.2.1' }],
  ['--bind-address-hard-fail', 'bindAddressHardFail: true', { bindAddressHardFail: true }],
  ['--cleanup', undefined, { cleanup: true }],
  [
    '--cluster-cidr=10.0.0.0/8,fd00::/48',
    'clusterCIDR: 10.0.0.0/8,fd00::/48',
    { clusterCIDRs: ['10.0.0.0/8', 'fd00::/48'] },
  ],
  ['--detect-local-mode=NodeCIDR', 'detectLocalMode: NodeCIDR', { detectLocalMode: 'NodeCIDR' }],
  ['--detect-local-mode=', "detectLocalMode: ''", {}],
  [
    '--feature-gates=AllowServiceExternalIPs=false',
    'featureGates: { AllowServiceExternalIPs: false }',
    { gates: { ...defaults.gates, AllowServiceExternalIPs: false } },
  ],
  [
    '--healthz-bind-address=192.0.2.1:99',
    'healthzBindAddress: 192.0.2.1:99',
    { healthzBindAddress: { host: '192.0.2.1', port: 99 } },
  ],
  [
    '--healthz-bind-address=192.0.2.1',
    'healthzBindAddress: 192.0.2.1',
    { healthzBindAddress: { host: '192.0.2.1', port: 10256 } },
  ],
  [
    '--healthz-bind-address=[::]:99',
    "healthzBindAddress: '[::]:99'",
    { healthzBindAddress: { host: '::', port: 99 } },
  ],
  [
    '--healthz-bind-address=::1',
    "healthzBindAddress: '::1'",
    { healthzBindAddress: { host: '::1', port: 10256 } },
  ],
  ['--healthz-bind-address=', "healthzBindAddress: ''", {}],
  ['--hostname-override= Alder ', "hostnameOverride: ' Alder '", { nodeName: 'alder' }],
  ['--iptables-min-sync-period=1s', 'nftables: { minSyncPeriod: 1s }', { minSyncPeriodMs: 1000 }],
  ['--iptables-sync-period=1m', 'nftables: { syncPeriod: 1m }', { syncPeriodMs: 60_000 }],
  [
    '--kube-api-content-type=application/json',
    'clientConnection: { contentType: application/json }',
    client({ contentType: 'json' }),
  ],
  [
    '--kube-api-content-type=application/vnd.kubernetes.protobuf',
    'clientConnection: { contentType: application/vnd.kubernetes.protobuf }',
    {},
  ],
  ['--kubeconfig=/k', 'clientConnection: { kubeconfig: /k }', client({ kubeconfig: '/k' })],
  ['--logging-format=json', 'logging: { format: json }', logging({ format: 'json' })],
  ['--manifests=/m', undefined, { manifests: '/m' }],
  ['--masquerade-all', 'nftables: { masqueradeAll: true }', { masqueradeAll: true }],
  ['--master=https://x', undefined, client({ master: 'https://x' })],
  [
    '--metrics-bind-address=0.0.0.0',
    'metricsBindAddress: 0.0.0.0',
    { metricsBindAddress: { host: '0.0.0.0', port: 10249 } },
  ],
  ['--nodeport-addresses=primary', 'nodePortAddresses: [primary]', { nodePortAddresses: ['primary'] }],
  [
    '--nodeport-addresses=10.0.0.0/8,::/0',
    "nodePortAddresses: [10.0.0.0/8, '::/0']",
    { nodePortAddresses: ['10.0.0.0/8', '::/0'] },
  ],
  [
    '--proxy-mode=nftables',
    'mode: nftables',
    { mode: 'nftables', nodePortAddresses: ['primary'], localhostNodePorts: undefined },
  ],
  ['--proxy-mode=', "mode: ''", {}],
  ['--startup-timeout=0s', undefined, { startupTimeoutMs: 0 }],
  ['--v=4', 'logging: { verbosity: 4 }', logging({ verbosity: 4 })],
];

describe('settings', () => {
  for (const [flag, field, meaning] of settings) {
    test(flag, () => {
      assert.deepEqual(fromFlags(flag), { ...defaults, ...meaning });
    });
    if (field === undefined) continue;
    test(field, () => {
      assert.deepEqual(plain(fromFile(field)), plain({ ...defaults, ...meaning }));
    });
  }

  test('settings of two fields at once: bridges and prefixes', () => {
    const bridge = { detectLocalMode: 'BridgeInterface', podBridgeInterface: 'cni0' } as const;
    assert.deepEqual(fromFlags('--detect-local-mode=BridgeInterface', '--pod-bridge-interface=cni0'), {
      ...defaults,
      ...bridge,
    });
    assert.deepEqual(
      plain(fromFile('detectLocalMode: BridgeInterface\ndetectLocal: { bridgeInterface: cni0 }')),
      plain({ ...defaults, ...bridge }),
    );
    const prefix = { detectLocalMode: 'InterfaceNamePrefix', podInterfaceNamePrefix: 'veth' } as const;
    assert.deepEqual(
      fromFlags('--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=veth'),
      { ...defaults, ...prefix },
    );
    assert.deepEqual(
      plain(fromFile('detectLocalMode: InterfaceNamePrefix\ndetectLocal: { interfaceNamePrefix: veth }')),
      plain({ ...defaults, ...prefix }),
    );
  });

  test('only the file has a masquerade bit for nftables', () => {
    assert.equal(fromFile('nftables: { masqueradeBit: 0 }').masqueradeBit, 0);
    assert.equal(fromFile('nftables: { masqueradeBit: 31 }').masqueradeBit, 31);
    assert.equal(fromFile('nftables: { masqueradeBit: null }').masqueradeBit, 14);
  });

  test('masqueradeAll of the iptables section counts only where nftables has none', () => {
    assert.equal(fromFile('iptables: { masqueradeAll: true }').masqueradeAll, true);
    assert.equal(
      fromFile('mode: nftables\niptables: { masqueradeAll: true }\nnftables: { masqueradeAll: false }')
        .masqueradeAll,
      false,
    );
  });

  test('a file with an IPv6 bind address moves the servers to IPv6, flags do not', () => {
    const config = fromFile("bindAddress: '::'");
    assert.deepEqual(config.healthzBindAddress, { host: '::', port: 10256 });
    assert.deepEqual(config.metricsBindAddress, { host: '::1', port: 10249 });
    assert.deepEqual(fromFlags('--bind-address=::').healthzBindAddress, defaults.healthzBindAddress);
  });

  test('periods of zero mean the default in a file', () => {
    const config = fromFile('nftables: { syncPeriod: 0s, minSyncPeriod: 0s }');
    assert.deepEqual([config.syncPeriodMs, config.minSyncPeriodMs], [30_000, 10]);
    assert.equal(fromFlags('--iptables-min-sync-period=0').minSyncPeriodMs, 0);
  });
});

describe('a file and flags', () => {
  test('some flags count beside a file, the others are named as ignored', () => {
    const config = fromFile(
      'hostnameOverride: birch\nlogging: { verbosity: 2, format: text }\nclusterCIDR: 10.0.0.0/8',
      '--hostname-override=alder',
      '--v=5',
      '--logging-format=json',
      '--master=https://x',
      '--manifests=/m',
      '--startup-timeout=5s',
      '--cleanup',
      '--cluster-cidr=10.9.0.0/16',
      '--masquerade-all',
    );
    assert.deepEqual(
      plain(config),
      plain({
        ...defaults,
        ...logging({ verbosity: 5, format: 'json' }),
        ...client({ master: 'https://x' }),
        nodeName: 'alder',
        manifests: '/m',
        startupTimeoutMs: 5000,
        cleanup: true,
        clusterCIDRs: ['10.0.0.0/8'],
        warnings: ['--config replaces the settings made by flags: --cluster-cidr, --masquerade-all ignored'],
      }),
    );
  });

  test('JSON', () => {
    const path = file(
      JSON.stringify({
        apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
        kind: 'KubeProxyConfiguration',
        mode: 'nftables',
        nodePortAddresses: null,
        conntrack: { maxPerCore: null },
      }),
    );
    assert.deepEqual(plain(fromFlags(`--config=${path}`)), plain(fromFlags('--proxy-mode=nftables')));
  });

  test('what kubeadm writes into its ConfigMap loads as it is', () => {
    const config = fromFile(`
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`);
    assert.deepEqual(
      plain(config),
      plain({
        ...defaults,
        ...client({ kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf' }),
        clusterCIDRs: ['10.244.0.0/16'],
      }),
    );
  });

  test('unknown fields at any depth are named, and ignored', () => {
    const config = fromFile(
      'hostnameoverride: x\nnftables: { masqueradeBti: 3 }\ndetectLocal: { bridge: x }',
    );
    assert.deepEqual(
      config.warnings.map((warning) => warning.replace(/^.*: unknown/, 'unknown')),
      [
        'unknown field "detectLocal.bridge" ignored',
        'unknown field "hostnameoverride" ignored',
        'unknown field "nftables.masqueradeBti" ignored',
      ],
    );
  });

  test('unknown feature gates are named, and ignored', () => {
    assert.deepEqual(fromFlags('--feature-gates=Magic=true,AllowServiceExternalIPs=true').warnings, [
      'feature gate Magic is not known to this version and has no effect',
    ]);
  });
});

const refused: [what: string, load: () => Config, message: RegExp][] = [
  ['no mode', () => fromFile('mode: magic'), /^mode: "magic": must be nftables, iptables, ipvs, or empty/],
  [
    'local mode',
    () => fromFlags('--detect-local-mode=clustercidr'),
    /^--detect-local-mode: "clustercidr": must be one of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix$/,
  ],
  [
    'bridge',
    () => fromFile('detectLocalMode: BridgeInterface'),
    /^detectLocal\.bridgeInterface: "": must name the bridge/,
  ],
  [
    'prefix',
    () => fromFlags('--detect-local-mode=InterfaceNamePrefix'),
    /^--pod-interface-name-prefix: "": must be set/,
  ],
  [
    'CIDR',
    () => fromFlags('--cluster-cidr=10.0.0.0'),
    /^--cluster-cidr: "10\.0\.0\.0": must be a CIDR such as/,
  ],
  [
    'CIDR in a file',
    () => fromFile('clusterCIDR: 10.0.0.0/33'),
    /^clusterCIDR: "10\.0\.0\.0\/33": must be a CIDR/,
  ],
  [
    'primary and CIDRs',
    () => fromFlags('--nodeport-addresses=primary,10.0.0.0/8'),
    /^--nodeport-addresses: "primary,10\.0\.0\.0\/8": 'primary' stands alone/,
  ],
  [
    'node port CIDR',
    () => fromFile('nodePortAddresses: [x]'),
    /^nodePortAddresses: "x": must be a CIDR or 'primary'$/,
  ],
  [
    'bind address',
    () => fromFlags('--bind-address=1.2.3.4:5'),
    /^--bind-address: "1\.2\.3\.4:5": must be an IP address$/,
  ],
  [
    'health host name',
    () => fromFlags('--healthz-bind-address=localhost:1'),
    /^--healthz-bind-address: "localhost:1": must be IP:port/,
  ],
  ['health port 0', () => fromFlags('--healthz-bind-address=0.0.0.0:0'), /port 1\.\.65535$/],
  [
    'health port',
    () => fromFile('healthzBindAddress: 0.0.0.0:65536'),
    /^healthzBindAddress: "0\.0\.0\.0:65536": must be IP:port/,
  ],
  [
    'metrics without a port',
    () => fromFlags('--metrics-bind-address=192.0.2.1:'),
    /^--metrics-bind-address: .*must be IP:port/,
  ],
  [
    'content type',
    () => fromFlags('--kube-api-content-type=text/plain'),
    /^--kube-api-content-type: "text\/plain": must be application\/vnd/,
  ],
  ['log format', () => fromFlags('--logging-format=xml'), /^--logging-format: "xml": must be text or json$/],
  [
    'blank node name',
    () => fromFlags('--hostname-override=  '),
    /^--hostname-override: " {2}": must not be blank$/,
  ],
  ['gate', () => fromFlags('--feature-gates=A'), /^--feature-gates: "A" is not name=true or name=false$/],
  ['gate value', () => fromFlags('--feature-gates=A=maybe'), /^--feature-gates: "A=maybe" is not name=true/],
  [
    'several at once',
    () => fromFlags('--proxy-mode=x', '--bind-address=y'),
    /^--proxy-mode: .*; --bind-address: /,
  ],
  ['no file', () => fromFlags('--config=/nonexistent'), /^--config: cannot read \/nonexistent: ENOENT/],
  ['not YAML', () => fromFlags(`--config=${file('a: [')}`), /config-\d+\.yaml:1:\d+: /],
  ['empty file', () => fromFlags(`--config=${file('')}`), /config-\d+\.yaml: document: /],
  [
    'version',
    () => fromFlags(`--config=${file('apiVersion: v1\nkind: KubeProxyConfiguration')}`),
    /: apiVersion: .*kubeproxy\.config\.k8s\.io\/v1alpha1/,
  ],
  [
    'kind',
    () => fromFlags(`--config=${file('apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: Pod')}`),
    /: kind: .*KubeProxyConfiguration/,
  ],
  ['type', () => fromFile('bindAddressHardFail: 3'), /: bindAddressHardFail: .*boolean/],
  ['bit', () => fromFile('nftables: { masqueradeBit: 32 }'), /: nftables\.masqueradeBit: .*31/],
  ['duration', () => fromFile('nftables: { syncPeriod: 30 }'), /: nftables\.syncPeriod: /],
  [
    'duration text',
    () => fromFile('nftables: { syncPeriod: soon }'),
    /: nftables\.syncPeriod: must be a duration such as/,
  ],
  [
    'zero sync period',
    () => fromFlags('--iptables-sync-period=0s'),
    /^--iptables-sync-period: "0s": must be greater than 0$/,
  ],
  [
    'min above max',
    () => fromFlags('--iptables-min-sync-period=1m'),
    /^--iptables-min-sync-period: "1m": must not be greater than --iptables-sync-period \(30s\)$/,
  ],
  [
    'min above max in a file',
    () => fromFile('nftables: { minSyncPeriod: 2s, syncPeriod: 1s }'),
    /^nftables\.minSyncPeriod: "2s": must not be greater than nftables\.syncPeriod \(1s\)$/,
  ],
];

describe('refusals', () => {
  for (const [what, load, message] of refused) {
    test(what, () => {
      assert.throws(load, (error) => {
        assert.ok(error instanceof ConfigError, String(error));
        assert.equal(error.code, 'CONFIG_INVALID');
        assert.match(error.message, message);
        return true;
      });
    });
  }
});
