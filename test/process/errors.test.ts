/** Every mistake an operator can make: one line that says what is wrong and what to do, and a documented exit code. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { exitCodes } from '../../src/exit/exit-codes.js';
import { explainNetlink } from '../../src/backends/nft/open.js';
import { checkKernelVersion } from '../../src/backends/nftables/kernel/requirements.js';
import { FatalError } from '../../src/exit/exit-codes.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { GenericConnection } from '@kube-proxy-ts/netlink/generic';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { program, start } from './node.js';

const skip = enterNetworkNamespace();
const folder = mkdtempSync(join(tmpdir(), 'kpp-errors-'));
const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

function kernelHasIpvs(): boolean {
  const generic = GenericConnection.open();
  try {
    return generic.resolveFamily('IPVS') !== undefined;
  } finally {
    generic.close();
  }
}

/** Lines of the operator's kind: not the log. */
function complaints(output: string): string[] {
  return output.split('\n').filter((line) => line.startsWith('kube-proxy: '));
}

interface Mistake {
  readonly name: string;
  readonly args: readonly string[] | (() => readonly string[]);
  readonly command?: readonly string[];
  readonly code: keyof typeof exitCodes;
  /** What is wrong, and what to do. */
  readonly says: RegExp;
}

const ports = { http: 0, https: 0 };

/** Of this network namespace; kube-proxy lowers it. */
const timeout = '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established';

const kubeconfig = (server: string, user = '{}'): string => `
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { server: "${server}" } }]
users: [{ name: u, user: ${user} }]
contexts: [{ name: x, context: { cluster: c, user: u } }]
current-context: x
`;

/** A manifest that everybody may read. */
const readable = (): string => {
  chmodSync(folder, 0o755);
  return empty();
};
const empty = (): string => file('empty.yaml', '{ apiVersion: v1, kind: List, items: [] }');

const mistakes: readonly Mistake[] = [
  {
    name: 'unknown flag',
    args: ['--proxy-mod=nftables'],
    code: 'configuration',
    says: /unknown flag: --proxy-mod \(did you mean --proxy-mode\?\)/,
  },
  {
    name: 'bad number',
    args: ['--v=many'],
    code: 'configuration',
    says: /invalid argument "many" for "--v" flag: must be a number/,
  },
  {
    name: 'flag without its argument',
    args: ['--kubeconfig'],
    code: 'configuration',
    says: /flag needs an argument: --kubeconfig/,
  },
  {
    name: 'positional argument',
    args: ['run'],
    code: 'configuration',
    says: /takes no arguments, only flags, but got "run"/,
  },
  {
    name: 'unsupported mode',
    args: ['--proxy-mode=magic'],
    code: 'configuration',
    says: /--proxy-mode: "magic": must be nftables, iptables, ipvs/,
  },
  kernelHasIpvs()
    ? {
        name: 'an IPVS scheduler that nobody knows',
        args: () => ['--proxy-mode=ipvs', '--ipvs-scheduler=fair', `--manifests=${empty()}`],
        code: 'configuration',
        says: /there is no IPVS scheduler "fair"; Linux has rr, wrr, lc/,
      }
    : {
        name: 'mode ipvs where the kernel has no IPVS',
        args: () => ['--proxy-mode=ipvs', `--manifests=${empty()}`],
        code: 'kernelUnsupported',
        says: /the kernel has no IPVS: load it with 'modprobe ip_vs'/,
      },
  {
    name: 'bad CIDR',
    args: ['--cluster-cidr=10.0.0.0'],
    code: 'configuration',
    says: /--cluster-cidr: "10.0.0.0": must be a CIDR such as/,
  },
  {
    name: 'bad address',
    args: ['--healthz-bind-address=localhost:1'],
    code: 'configuration',
    says: /--healthz-bind-address: "localhost:1": must be IP:port/,
  },
  {
    name: 'bridge mode without bridge',
    args: ['--detect-local-mode=BridgeInterface'],
    code: 'configuration',
    says: /--pod-bridge-interface: "": must be set in local mode BridgeInterface/,
  },
  {
    name: 'config file missing',
    args: ['--config=/nonexistent'],
    code: 'configuration',
    says: /--config: cannot read \/nonexistent: ENOENT/,
  },
  {
    name: 'config file not YAML',
    args: () => [`--config=${file('bad.yaml', 'a: [')}`],
    code: 'configuration',
    says: /bad\.yaml:1:\d+: /,
  },
  {
    name: 'config file with a wrong field',
    args: () => [
      `--config=${file('field.yaml', 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\nnftables: { masqueradeBit: 77 }')}`,
    ],
    code: 'configuration',
    says: /field\.yaml:4: nftables\.masqueradeBit: 77: must be from 0 to 31/,
  },
  {
    name: 'no capability',
    command: ['setpriv', '--bounding-set=-net_admin'],
    args: () => [`--manifests=${empty()}`],
    code: 'notPermitted',
    says: /not permitted to program the kernel: run as root, or give the container the capability NET_ADMIN/,
  },
  {
    name: 'API server refuses',
    args: ['--master=http://127.0.0.1:1', '--startup-timeout=1s'],
    code: 'apiUnreachable',
    says: /127\.0\.0\.1:1 refuses the connection: check that it runs/,
  },
  {
    name: 'API server name does not resolve',
    args: ['--master=http://nowhere.invalid', '--startup-timeout=1s'],
    code: 'apiUnreachable',
    says: /nowhere\.invalid/,
  },
  {
    name: '401',
    args: () => [`--master=http://127.0.0.1:${ports.http}`],
    code: 'apiUnauthorized',
    says: /401|not authenticated|[Uu]nauthorized/,
  },
  {
    name: 'certificate not trusted',
    args: () => [`--kubeconfig=${file('tls', kubeconfig(`https://127.0.0.1:${ports.https}`))}`],
    code: 'apiCertificate',
    says: /certificate/,
  },
  {
    name: 'no API server known',
    args: [],
    code: 'credentials',
    says: /no API server is known: give --kubeconfig or --master/,
  },
  {
    name: 'kubeconfig missing',
    args: ['--kubeconfig=/nonexistent'],
    code: 'credentials',
    says: /kubeconfig \/nonexistent does not exist: check --kubeconfig/,
  },
  {
    name: 'kubeconfig not YAML',
    args: () => [`--kubeconfig=${file('garbage', '\t{{{')}`],
    code: 'credentials',
    says: /garbage/,
  },
  {
    name: 'kubeconfig without its context',
    args: () => [
      `--kubeconfig=${file('ctx', kubeconfig('https://127.0.0.1:1').replace('current-context: x', 'current-context: y'))}`,
    ],
    code: 'credentials',
    says: /context.*y/,
  },
  {
    name: 'client certificate missing',
    args: () => [
      `--kubeconfig=${file('cert', kubeconfig('https://127.0.0.1:1', '{ client-certificate: /nonexistent.pem, client-key: /nonexistent.key }'))}`,
    ],
    code: 'credentials',
    says: /nonexistent/,
  },
  {
    name: 'manifests missing',
    args: ['--manifests=/nonexistent'],
    code: 'manifests',
    says: /\/nonexistent: does not exist: give --manifests a file or folder/,
  },
  {
    name: 'manifest not YAML',
    args: () => [`--manifests=${file('m1.yaml', 'kind: [')}`],
    code: 'manifests',
    says: /m1\.yaml:1:\d+/,
  },
  {
    name: 'manifest with a wrong field',
    args: () => [
      `--manifests=${file('m2.yaml', 'apiVersion: v1\nkind: Service\nmetadata: { name: a, namespace: b }\nspec:\n  clusterIP: 10.0.0.1\n  ports: [{ port: eighty }]\n')}`,
    ],
    code: 'manifests',
    says: /m2\.yaml:6:\d+.*spec\.ports\[0\]\.port/,
  },
  {
    name: 'port in use',
    args: () => [
      `--manifests=${empty()}`,
      `--healthz-bind-address=127.0.0.1:${ports.http}`,
      '--bind-address-hard-fail',
    ],
    code: 'addressInUse',
    says: /cannot listen on 127\.0\.0\.1:\d+: the port is taken by another process/,
  },
];

describe('mistakes', { skip }, () => {
  const servers: Server[] = [];
  before(async () => {
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=test',
        '-addext',
        'subjectAltName=IP:127.0.0.1',
        '-keyout',
        join(folder, 'key.pem'),
        '-out',
        join(folder, 'cert.pem'),
      ],
      { stdio: 'ignore' },
    );
    const unauthorized = createServer((request, response) => {
      request.resume();
      response.writeHead(401, { 'Content-Type': 'application/json' });
      response.end(
        '{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}',
      );
    });
    const tls = createTlsServer(
      { key: readFileSync(join(folder, 'key.pem')), cert: readFileSync(join(folder, 'cert.pem')) },
      (_request, response) => response.end(),
    );
    servers.push(unauthorized, tls);
    for (const server of servers)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ports.http = (unauthorized.address() as AddressInfo).port;
    ports.https = (tls.address() as AddressInfo).port;
  });
  after(() => {
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true });
  });

  for (const { name, args, command = [], code, says } of mistakes) {
    test(`${name} → ${code} (${exitCodes[code]})`, async () => {
      const [first = program, ...rest] = [
        ...command,
        program,
        ...(typeof args === 'function' ? args() : args),
      ];
      writeFileSync(timeout, '432000');
      const child = start(first, ...rest);
      const status = await child.end(20_000);
      assert.equal(readFileSync(timeout, 'utf8'), '432000\n', `sysctls are changed:\n${child.output}`);
      const said = complaints(child.output);
      assert.equal(said.length, 1, `one line, got:\n${child.output}`);
      assert.match(said[0] ?? '', says);
      assert.equal(status, exitCodes[code], child.output);
    });
  }

  for (const args of [['--kubeconfig=/nonexistent'], [], ['--manifests=/nonexistent']]) {
    test(`a start that can not work says one line: ${args.join(' ')}`, async () => {
      const child = start(program, ...args, '--cluster-cidr=10.61.0.0/16', '--v=2');
      await child.end();
      assert.match(child.output, /^kube-proxy: [^\n]+\n$/);
    });
  }

  test('a port in use is tried again by default, and the rules are programmed meanwhile', async () => {
    const child = start(program, `--manifests=${empty()}`, `--healthz-bind-address=127.0.0.1:${ports.http}`);
    try {
      await child.waitFor('the port is taken by another process');
      await child.waitFor('Resync complete');
      assert.equal(readFileSync(timeout, 'utf8'), '86400\n', 'now sysctls are set');
    } finally {
      child.kill('SIGTERM');
    }
    assert.equal(await child.end(), 0);
  });

  for (const signals of [['SIGTERM'], ['SIGTERM', 'SIGTERM']] as const) {
    test(`a credential plugin that hangs ends with the process: ${signals.join(', ')}`, async () => {
      const pids = file('plugin.pids', '');
      const script = file('plugin', `#!/bin/sh\nsleep 600 &\necho $$ $! > ${pids}\nwait\n`);
      chmodSync(script, 0o755);
      const user = `{ exec: { apiVersion: client.authentication.k8s.io/v1, command: ${script} } }`;
      const child = start(
        program,
        `--kubeconfig=${file('exec', kubeconfig('https://127.0.0.1:1', user))}`,
        '--healthz-bind-address=',
        '--metrics-bind-address=',
      );
      const started = (): string => readFileSync(pids, 'utf8');
      for (let i = 0; i < 500 && started() === ''; i++)
        await new Promise((resolve) => setTimeout(resolve, 10));
      assert.match(started(), /^\d+ \d+\n$/);
      for (const signal of signals) child.kill(signal);
      const status = await child.end(5000);
      assert.notEqual(status, 128, child.output);
      const alive = started()
        .trim()
        .split(' ')
        .filter((pid) => existsSync(`/proc/${pid}/status`))
        .filter((pid) => !readFileSync(`/proc/${pid}/status`, 'utf8').includes('zombie'));
      for (const pid of alive) process.kill(Number(pid), 'SIGKILL');
      assert.deepEqual(alive, []);
    });
  }

  test('with only NET_ADMIN: what leftovers would need is said once', async (t) => {
    const names = '/proc/net/ip_tables_names';
    if (!existsSync(names)) {
      t.skip(`the kernel has no ${names}`);
      return;
    }
    const unprivileged = [
      ...['--reuid=65534', '--regid=65534', '--clear-groups'],
      ...['--inh-caps=-all,+net_admin', '--ambient-caps=+net_admin', '--bounding-set=-all,+net_admin'],
    ];
    const child = start('setpriv', ...unprivileged, program, `--manifests=${readable()}`, '--v=2');
    try {
      await child.waitFor('Not permitted to look for leftovers of other modes');
      // The first retry of what failed would come after 5 s.
      await new Promise((resolve) => setTimeout(resolve, 6000));
    } finally {
      child.kill('SIGTERM');
    }
    assert.equal(await child.end(), 0, child.output);
    const lines = child.output.split('\n').filter((line) => /leftovers|EACCES/.test(line));
    assert.deepEqual(
      lines.filter((line) => line.startsWith('E')),
      [],
      child.output,
    );
    assert.equal(lines.filter((line) => line.includes('ip_tables_names')).length, 1, lines.join('\n'));
    assert.match(lines.join('\n'), /capability="DAC_OVERRIDE"/);
  });

  test('several wrong settings are all told at once', async () => {
    const child = start(program, '--bind-address=x', '--cluster-cidr=y', '--logging-format=z');
    assert.equal(await child.end(), exitCodes.configuration);
    assert.equal(complaints(child.output).length, 3);
  });
});

test('a kernel without nf_tables is explained', () => {
  for (const errno of [93, 95, 22]) {
    const error = explainNetlink(new NetlinkError({ operation: 'list tables', errno }));
    assert.ok(error instanceof FatalError);
    assert.equal(error.exitCode, exitCodes.kernelUnsupported);
    assert.match(error.message, /the kernel has no nf_tables \(E\w+\): load it with 'modprobe nf_tables'/);
  }
});

test('an old kernel is refused', () => {
  assert.throws(() => {
    checkKernelVersion('5.10.0-32-amd64');
  }, /nftables mode needs kernel 5\.13 or newer, this is 5\.10\.0-32-amd64/);
  checkKernelVersion('5.13.0');
  checkKernelVersion('6.1.0-40-amd64');
});

test('docs/errors.md has a row for every exit code', () => {
  const docs = readFileSync(
    join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', 'docs', 'errors.md'),
    'utf8',
  );
  for (const code of Object.values(exitCodes)) assert.match(docs, new RegExp(`^\\| ${code} \\|`, 'm'));
});
