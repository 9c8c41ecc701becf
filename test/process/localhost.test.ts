/**
 * Node ports on the node's loopback addresses, which the automatic mode has and mode nftables has not unless asked; and
 * the guard that keeps services on 127.0.0.1 closed to neighbours (CVE-2020-8558).
 */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { type Child, nodeIP, podIP, program, serviceIP, SmallNode, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

const podIPv6 = 'fd61::31';
const nodeIPv6 = '2001:db8:a::11';
const nodePort = 31050;
/** A port of the node that only its own processes may use. */
const privatePort = 2222;
/** The neighbour's name for the node's 127.0.0.1: rewritten behind its own routing, which would refuse. */
const alias = '192.0.2.1';

const manifest = (policy: 'Cluster' | 'Local'): string =>
  ['TCP', 'UDP']
    .map(
      (protocol) => `
apiVersion: v1
kind: Service
metadata: { name: ${protocol.toLowerCase()}, namespace: orchard }
spec:
  type: NodePort
  externalTrafficPolicy: ${policy}
  clusterIP: ${protocol === 'TCP' ? serviceIP : '10.177.0.51'}
  clusterIPs: ['${protocol === 'TCP' ? serviceIP : '10.177.0.51'}', 'fd77::${protocol === 'TCP' ? 50 : 51}']
  ipFamilies: [IPv4, IPv6]
  ports: [{ name: web, port: 80, protocol: ${protocol}, nodePort: ${nodePort} }]
${['IPv4', 'IPv6']
  .map(
    (family) => `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${protocol.toLowerCase()}-${family.toLowerCase()}, namespace: orchard, labels: { kubernetes.io/service-name: ${protocol.toLowerCase()} } }
addressType: ${family}
ports: [{ name: web, port: 9000, protocol: ${protocol} }]
endpoints:
  - { addresses: ['${family === 'IPv4' ? podIP : podIPv6}'], nodeName: alder }
`,
  )
  .join('')}`,
    )
    .join('---');

/** @returns what came back, or how it failed */
async function askTcp(host: string, port: number, timeoutMs = 3000): Promise<string> {
  return await new Promise((resolve) => {
    const socket = connect({ host, port });
    const done = (outcome: string): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(() => {
      done('silence');
    }, patiently(timeoutMs));
    socket.on('connect', () => socket.write('hello'));
    socket.on('data', (data) => {
      done(data.toString());
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      done(error.code ?? error.message);
    });
  });
}

async function askUdp(host: string, port: number): Promise<string> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  try {
    return await new Promise((resolve) => {
      const timer = setTimeout(() => {
        resolve('silence');
      }, patiently(3000));
      const done = (outcome: string): void => {
        clearTimeout(timer);
        resolve(outcome);
      };
      socket.on('message', (message) => {
        done(message.toString());
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        done(error.code ?? error.message);
      });
      socket.connect(port, host, () => {
        socket.send('hello');
      });
    });
  } finally {
    socket.close();
  }
}

describe('node ports on loopback addresses', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-localhost-'));
  const privateServer = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });

  const neighbourAsks = async (port: number): Promise<string> => {
    const child = node.inNamespace(1, 'ask.js', alias, String(port), String(patiently(1500)));
    await child.end();
    return child.output.trim();
  };
  const proxy = async (...args: readonly string[]): Promise<Child> => {
    const child = start(
      program,
      `--manifests=${folder}`,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16,fd61::/64',
      `--bind-address=${nodeIPv6}`,
      '--v=2',
      ...args,
    );
    await child.waitFor(bothCompared);
    return child;
  };
  const end = async (child: Child): Promise<void> => {
    child.kill('SIGTERM');
    assert.equal(await child.end(), 0, child.output);
  };

  before(async () => {
    await node.open();
    writeFileSync(join(folder, 'services.yaml'), manifest('Cluster'));
    writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
    const [pod, client] = [node.namespace(0), node.namespace(1)];
    run('ip', 'address', 'add', 'fd61::1/64', 'dev', 'to0', 'nodad');
    run('ip', 'address', 'add', `${nodeIPv6}/128`, 'dev', 'lo', 'nodad');
    run('ip', '-n', pod, 'address', 'add', `${podIPv6}/64`, 'dev', 'eth0', 'nodad');
    run('ip', '-n', pod, 'route', 'add', 'default', 'via', 'fd61::1');
    await node.inNamespace(0, 'echo.js', podIPv6, '9000').waitFor('ready');
    await new Promise<void>((resolve) => privateServer.listen(privatePort, '127.0.0.1', resolve));
    const rewrite = `table ip alias {
      chain out { type filter hook postrouting priority 300; ip daddr ${alias} ip daddr set 127.0.0.1; }
      chain in { type filter hook prerouting priority -300; ip saddr 127.0.0.1 ip saddr set ${alias}; }
    }`;
    writeFileSync(join(folder, 'alias.nft'), rewrite);
    run('ip', 'netns', 'exec', client, 'nft', '-f', join(folder, 'alias.nft'));
  });
  after(async () => {
    privateServer.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  test('an empty mode serves them, both families, and says why', async () => {
    const child = await proxy();
    try {
      for (const host of ['127.0.0.1', '127.0.0.2', '::1', nodeIPv6, nodeIP]) {
        assert.equal(await askTcp(host, nodePort), 'hello', `TCP ${host}`);
        assert.equal(await askUdp(host, nodePort), 'hello', `UDP ${host}`);
      }
      assert.match(child.output, /"Starting kube-proxy-ts".* mode="nftables" why="no mode is configured/);
      const mode = await fetch('http://127.0.0.1:10249/proxyMode');
      assert.equal(await mode.text(), 'nftables');
    } finally {
      await end(child);
    }
  });

  test('with policy Local, a process of the node still gets any endpoint', async () => {
    writeFileSync(
      join(folder, 'services.yaml'),
      manifest('Local').replaceAll('nodeName: alder', 'nodeName: birch'),
    );
    const child = await proxy();
    try {
      for (const host of ['127.0.0.1', '::1']) assert.equal(await askTcp(host, nodePort), 'hello', host);
    } finally {
      await end(child);
      writeFileSync(join(folder, 'services.yaml'), manifest('Cluster'));
    }
  });

  test('what listens on 127.0.0.1 only, and node ports there, stay closed to neighbours', async () => {
    // What this would be without us: route_localnet opens the door.
    run('nft', 'delete', 'table', 'ip', 'kube-proxy');
    writeFileSync('/proc/sys/net/ipv4/conf/all/route_localnet', '1');
    assert.equal(await neighbourAsks(privatePort), 'hello');
    const child = await proxy();
    try {
      assert.equal(await neighbourAsks(privatePort), 'silence');
      assert.equal(await neighbourAsks(nodePort), 'silence');
      assert.equal(await askTcp('127.0.0.1', privatePort), 'hello', 'open to the node itself');
      assert.equal(await askTcp('127.0.0.1', nodePort), 'hello');
    } finally {
      await end(child);
    }
  });

  test('an explicit mode nftables serves them nowhere, as upstream, and keeps the guard', async () => {
    const child = await proxy('--proxy-mode=nftables');
    try {
      for (const host of ['127.0.0.1', '::1'])
        assert.equal(await askTcp(host, nodePort), 'ECONNREFUSED', host);
      assert.equal(await askTcp(nodeIPv6, nodePort), 'hello');
      assert.equal(await neighbourAsks(privatePort), 'silence');
      assert.doesNotMatch(run('nft', 'list', 'table', 'ip6', 'kube-proxy'), /loopback/);
    } finally {
      await end(child);
    }
  });
});
