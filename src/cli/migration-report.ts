/** `kube-proxy migration-report`: what will be different when this node leaves mode ipvs. Reads the kernel, changes nothing. */
import { parseCommandLine } from '../config/flags/command-line.js';
import { loadConfig, type Config } from '../config/config.js';
import { movingText } from '../inspect/moving-text.js';
import { movingReport, type IpvsFacts, type MovingTarget } from '../inspect/moving.js';
import { externalAddresses } from '../backends/ipvs/leftovers/external-addresses.js';
import { readTableServers } from '../backends/ipvs/leftovers/tables.js';
import { kubeProxyServers } from '../backends/ipvs/leftovers/virtual-servers.js';
import { serviceInterface } from '../backends/ipvs/table/names.js';
import { explainReading } from '../backends/nft/open.js';
import { describeKey, IpvsConnection } from '@kube-proxy-ts/netlink/ipvs';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import { systemFiles, sysctlPath } from '../node/system/index.js';
import { commandHelp, splitArguments } from './command-arguments.js';
import { exitCodes } from '../exit/exit-codes.js';

const flags = {
  output: { short: 'o', argument: 'text|json', choice: ['text', 'json'], help: 'A table, or JSON.' },
  help: { short: 'h', help: 'Show this help.' },
} as const;

const about = [
  "Tells what will be different on this node when it leaves mode ipvs, upstream's or ours, for the mode that",
  'the given configuration asks for (nftables when it asks for ipvs). Changes nothing.',
].join('\n');

/** @returns the exit code @throws ConfigError, FatalError */
export function migrationReport(args: readonly string[]): Promise<number> {
  const { own, rest } = splitArguments(args, flags);
  if (own.help !== undefined) {
    process.stdout.write(commandHelp('migration-report', about, flags));
    return Promise.resolve(exitCodes.ok);
  }
  const target = targetOf(loadConfig(parseCommandLine(rest, 'kube-proxy migration-report')));
  const ipvs = IpvsConnection.openIfLoaded();
  if (ipvs === undefined) {
    process.stderr.write('kube-proxy: IPVS is not in use here: nothing moves\n');
    if (own.output === 'json') process.stdout.write('[]\n');
    return Promise.resolve(exitCodes.ok);
  }
  try {
    const rows = movingReport(readFacts(ipvs), target);
    process.stdout.write(
      own.output === 'json' ? `${JSON.stringify(rows, undefined, 2)}\n` : movingText(rows, target),
    );
    return Promise.resolve(exitCodes.ok);
  } catch (error) {
    throw explainReading(error, 'IPVS');
  } finally {
    ipvs.close();
  }
}

function targetOf(config: Config): MovingTarget {
  const mode = config.mode === 'iptables' ? 'iptables' : 'nftables';
  // What is configured for mode ipvs says nothing about the default of another.
  const byDefault = config.mode === 'ipvs' && config.nodePortAddresses.length === 0;
  return {
    mode,
    nodePortAddresses: byDefault ? ['primary'] : config.nodePortAddresses,
    localhostNodePorts: config.mode !== 'ipvs' && config.localhostNodePorts === true,
    excludeCIDRs: config.ipvs.excludeCIDRs,
  };
}

function readFacts(ipvs: IpvsConnection): IpvsFacts {
  const nft = NftablesConnection.open();
  const route = RouteConnection.open();
  try {
    const names = new Map<string, string | undefined>();
    readTableServers(nft, (key, name) => names.set(describeKey(key), name));
    const isOurs = kubeProxyServers();
    const servers = ipvs.listServices();
    const ours = servers.filter(({ key }) => isOurs(key));
    const addresses = route.listAddresses().filter(({ scope }) => scope === 'global');
    const addressesOf = (onInterface: boolean): string[] =>
      addresses
        .filter(({ interfaceName }) => (interfaceName === serviceInterface) === onInterface)
        .map(({ address }) => address);
    const serviceAddresses = addressesOf(true);
    const external = externalAddresses(nft);
    const [ignore, announce] = ['arp_ignore', 'arp_announce'].map((name) =>
      readNumber(`net/ipv4/conf/all/${name}`),
    );
    return {
      ours: ours.map((server) => ({
        server,
        endpoints: ipvs.listDestinations(server.key),
        name: names.get(describeKey(server.key)),
      })),
      others: servers.length - ours.length,
      serviceAddresses,
      externalAddresses: serviceAddresses.filter((address) => external.has(address)),
      nodeAddresses: addressesOf(false),
      timeouts: ipvs.getTimeouts(),
      conntrackTcpSeconds: readNumber('net/netfilter/nf_conntrack_tcp_timeout_established'),
      arp: ignore === undefined || announce === undefined ? undefined : { ignore, announce },
    };
  } finally {
    route.close();
    nft.close();
  }
}

function readNumber(sysctl: string): number | undefined {
  try {
    const number = Number(systemFiles().read(sysctlPath(sysctl)));
    return Number.isNaN(number) ? undefined : number;
  } catch {
    return undefined;
  }
}
