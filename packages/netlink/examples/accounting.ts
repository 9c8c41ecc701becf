import { AccountingConnection } from '@kube-proxy-ts/netlink/accounting';

const accounting = AccountingConnection.open();
accounting.ensure('dropped'); // a rule of iptables adds to it: -m nfacct --nfacct-name dropped
const counter = accounting.get('dropped');
console.log(`${String(counter?.packets)} packets, ${String(counter?.bytes)} bytes`);
accounting.close();
