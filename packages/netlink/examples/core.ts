import { NETLINK_ROUTE, NetlinkConnection, NetlinkSocket } from '@kube-proxy-ts/netlink';

// A protocol without an entry of its own: the rules of policy routing (linux/fib_rules.h).
const RTM_GETRULE = 34;
const FIB_RULE_HEADER = 12;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;
const AF_INET = 2;

const socket = NetlinkSocket.open(NETLINK_ROUTE);
const connection = new NetlinkConnection(socket);
connection.dump(
  {
    type: RTM_GETRULE,
    operation: 'list routing rules',
    encode: (writer) => writer.raw(Buffer.from([AF_INET, ...Buffer.alloc(FIB_RULE_HEADER - 1)])),
  },
  (message) => {
    let [priority, table] = [0, 0];
    const attributes = message.attributes(FIB_RULE_HEADER);
    while (attributes.next()) {
      if (attributes.type === FRA_PRIORITY) priority = attributes.hostU32();
      else if (attributes.type === FRA_TABLE) table = attributes.hostU32();
    }
    attributes.finish(); // throws if anything in the message was malformed
    console.log(`priority ${priority}: table ${table}`);
  },
);
socket.close();
