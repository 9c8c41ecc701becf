import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../config/config.js';
import { parseCommandLine } from '../config/flags/command-line.js';
import { createLogger } from '../log/logger.js';
import type { IPFamily } from '../model/types.js';
import { NodePortAddressSelection } from './node-port-addresses.js';

const GATE = '--feature-gates=KubeProxyNFTablesLocalhostNodePorts=true';
const FAMILIES: readonly IPFamily[] = ['IPv4', 'IPv6'];

function localhostFamilies(...flags: readonly string[]): readonly IPFamily[] {
  const selection = new NodePortAddressSelection({
    config: loadConfig(parseCommandLine(flags)),
    nodeIPs: { primaryFamily: 'IPv4', IPv4: '192.0.2.1', IPv6: '2001:db8::1', warnings: [] },
    localAddresses: () => ['127.0.0.1', '192.0.2.1', '::1', '2001:db8::1'],
    allowRouteLocalnet: () => undefined,
    log: createLogger({ format: 'text', verbosity: 0, write: () => undefined }),
  });
  return FAMILIES.filter((family) => selection.localhost(family) !== undefined);
}

// prettier-ignore
const CASES: readonly (readonly [flags: readonly string[], expected: readonly IPFamily[]])[] = [
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,localhost'], []],
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,localhost', GATE], FAMILIES],
  [['--proxy-mode=nftables', '--nodeport-addresses=primary,127.0.0.0/8', GATE], ['IPv4']],
  [['--proxy-mode=nftables', '--nodeport-addresses=all', GATE], []],
  [['--proxy-mode=nftables', '--nodeport-addresses=all,localhost', GATE], FAMILIES],
  [['--proxy-mode=nftables', GATE], []],
  [['--proxy-mode=iptables', '--nodeport-addresses=all'], FAMILIES],
];

for (const [flags, expected] of CASES) {
  test(`node ports on loopback addresses with ${flags.join(' ')}: ${expected.join(', ') || 'none'}`, () => {
    assert.deepEqual(localhostFamilies(...flags), expected);
  });
}
