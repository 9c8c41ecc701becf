import { FORWARDING, IpvsConnection } from '@kube-proxy-ts/netlink/ipvs';

const TCP = 6;
const ipvs = IpvsConnection.open(); // loads the module ip_vs where it can
const key = { family: 'ip', protocol: TCP, address: '10.96.0.1', port: 443 } as const;
const settings = { scheduler: 'rr', flags: 0, timeoutSeconds: 0, clientPrefixLength: 32 };
ipvs.addService({ key, settings });

const server = { forwarding: FORWARDING.masquerade, weight: 1, upperThreshold: 0, lowerThreshold: 0 };
const rejections = ipvs.executeAll(
  ['10.0.0.1', '10.0.0.2', '10.0.0.2'].map((address) => ({
    do: 'add destination' as const,
    service: key,
    destination: { family: 'ip' as const, address, port: 6443 },
    settings: server,
  })),
);
for (const { index, error } of rejections) console.log(`command ${index}: ${error.code}`);
for (const { key: destination } of ipvs.listDestinations(key))
  console.log(`${destination.address}:${destination.port}`);
ipvs.close();
