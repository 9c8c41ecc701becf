/** `kube-proxy ipvs`: what `ipvsadm -Ln` shows, with names. Works whether or not a kube-proxy is running; changes nothing. */
import { parseCommandLine } from '../config/flags/command-line.js';
import { loadConfig } from '../config/config.js';
import { virtualServersText } from '../inspect/virtual-servers-text.js';
import { readVirtualServers } from '../inspect/virtual-servers.js';
import { readTableServers } from '../backends/ipvs/leftovers/tables.js';
import { kubeProxyServers } from '../backends/ipvs/leftovers/virtual-servers.js';
import { explainReading } from '../backends/nft/open.js';
import { IpvsConnection } from '@kube-proxy-ts/netlink/ipvs';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { commandHelp, splitArguments } from './command-arguments.js';
import { exitCodes } from '../exit/exit-codes.js';
import { readPodNames } from './pod-names.js';

const flags = {
  namespace: {
    short: 'n',
    argument: 'NAME',
    help: 'Only Services of this namespace.',
  },
  service: { argument: 'NAME', help: 'Only this Service.' },
  output: {
    short: 'o',
    argument: 'text|json',
    choice: ['text', 'json'],
    help: 'A table, or JSON with counters of connections, packets and bytes.',
  },
  help: { short: 'h', help: 'Show this help.' },
} as const;

const about = [
  'Shows the virtual servers of IPVS and their endpoints as the kernel has them: weights, active and',
  'inactive connections, the scheduler, session affinity, and which Service, port and Pod each belongs to.',
  'Service ports are named by the tables of mode ipvs, Pods by the EndpointSlices of the API server.',
].join('\n');

/** @returns the exit code @throws ConfigError, FatalError */
export async function showIpvs(args: readonly string[]): Promise<number> {
  const { own, rest } = splitArguments(args, flags);
  if (own.help !== undefined) {
    process.stdout.write(commandHelp('ipvs', about, flags));
    return exitCodes.ok;
  }
  const config = loadConfig(parseCommandLine(rest, 'kube-proxy ipvs'));
  const ipvs = IpvsConnection.openIfLoaded();
  if (ipvs === undefined) {
    process.stderr.write('kube-proxy: IPVS is not in use: its module ip_vs is not loaded\n');
    process.stdout.write(own.output === 'json' ? '[]\n' : '');
    return exitCodes.ok;
  }
  const { namespace, service } = own;
  const pods = await readPodNames(config, { namespace, service }, (why) =>
    process.stderr.write(`kube-proxy: names of Pods are left out: ${why}\n`),
  );
  try {
    const servers = readVirtualServers(ipvs, {
      isOurs: kubeProxyServers(),
      readNames: (onServer) => {
        const nft = NftablesConnection.open();
        try {
          readTableServers(nft, onServer);
        } finally {
          nft.close();
        }
      },
      pods,
      namespace,
      service,
    });
    process.stdout.write(
      own.output === 'json' ? `${JSON.stringify(servers, undefined, 2)}\n` : virtualServersText(servers),
    );
    return exitCodes.ok;
  } catch (error) {
    throw explainReading(error, 'IPVS');
  } finally {
    ipvs.close();
  }
}
