import { formatAddress } from '@kube-proxy-ts/netlink';
import { ConntrackConnection, type FlowIdentity } from '@kube-proxy-ts/netlink/conntrack';

const UDP = 17;
const connection = ConntrackConnection.open();

// The kernel compares protocol and port; only entries that match are copied out.
const stale: FlowIdentity[] = [];
connection.listFlows('ip', { protocol: UDP, originalDestination: { port: 53 } }, (flow) => {
  const { original, reply } = flow;
  console.log(
    `${formatAddress(original.source)} -> ${formatAddress(original.destination)}, answered by ${formatAddress(reply.source)}`,
  );
  stale.push(flow.identity());
});
console.log(`deleted ${connection.deleteFlows(stale)}`);

const { entries } = connection.usage();
console.log(`${entries} entries left`);
connection.close();
