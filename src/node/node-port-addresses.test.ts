import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../config/config.js';
import { parseCommandLine } from '../config/flags/command-line.js';
import { createLogger } from '../log/logger.js';
import type { IPFamily } from '../model/types.js';
import { NodePortAddressSelection } from './node-port-addresses.js';

const gate = '--feature-gates=KubeProxyNFTablesLocalhostNodePorts=true';
const familyNames: readonly IPFamily[] = ['IPv4', 'IPv6'];

function localhostFamilies(...flags: readonly string[]): readonly IPFamily[] {
  const selection = new NodePortAddressSelection({
    config: loadConfig(parseCommandLine(flags)),
    nodeIPs: { primaryFamily: 'IPv4', IPv4: '192.0.2.1', IPv6: '2001:db8::1', warnings: [] },
    localAddresses: () => ['127.0.0.1', '192.0.2.1', '::1', '2001:db8::1'],
    allowRouteLocalnet: () => undefined,
    log: createLogger({ format: 'text', verbosity: 0, write: () => undefined }),
  });
  return familyNames.filter((family) => selection.localhost(family) !== undefined);
}

// prettier-ignore
const cases: readonly (readonly [flags: readonly string[], expected: readonly IPFamily[]])[] = [
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,localhost'], []],
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,localhost', gate], familyNames],
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,127.0.0.0/8', gate], ['IPv4']],
  [['--proxy-mode=nftables', '--nodeport-addresses=all', gate], []],
  [['--proxy-mode=nftables', '--nodeport-addresses=all,localhost', gate], familyNames],
  [['--proxy-mode=nftables', gate], []],
  [['--proxy-mode=iptables', '--nodeport-addresses=all'], familyNames],
];

for (const [flags, expected] of cases) {
  test(`node ports on loopback addresses with ${flags.join(' ')}: ${expected.join(', ') || 'none'}`, () => {
    assert.deepEqual(localhostFamilies(...flags), expected);
  });
}
