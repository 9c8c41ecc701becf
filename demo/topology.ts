/**
 * The network of the demo. The namespace that we are in plays the node; each pod has one of its own and a cable (veth) to
 * the node, routed, without a bridge, as many network plugins do it. Nothing leads out.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DemoError } from './errors.js';

export const node = {
  name: 'demo-node',
  /** From the range for documentation, RFC 5737. */
  ip: '192.0.2.10',
  /** The pods' gateway. */
  gateway: '10.244.0.1',
  podCidr: '10.244.0.0/24',
} as const;

/** A pod's network: what a container runtime calls a sandbox. It outlives the process in it. */
export interface Sandbox {
  readonly name: string;
  readonly ip: string;
}

function run(command: readonly [string, ...string[]], input = ''): void {
  const [program, ...args] = command;
  const { error, status, stderr } = spawnSync(program, args, { encoding: 'utf8', input });
  if (error !== undefined) {
    throw new DemoError(
      'SETUP_FAILED',
      `the command ${program} is missing: install iproute2 and util-linux`,
      {
        cause: error,
      },
    );
  }
  if (status !== 0) {
    throw new DemoError(
      'SETUP_FAILED',
      `${command.join(' ')} failed: ${stderr.trim().replaceAll('\n', '; ')}`,
    );
  }
}

/** nsenter, not `ip netns exec`: that one mounts a new /sys, which containers forbid. */
function inside(sandbox: Sandbox): [string, ...string[]] {
  return ['nsenter', `--net=/run/netns/${sandbox.name}`];
}

/** Makes the namespace that we are in a node that forwards packets. */
export function buildNode(): void {
  // `ip netns add` keeps its names in /run/netns: ours stay ours.
  run(['mount', '-t', 'tmpfs', 'tmpfs', '/run']);
  run(['ip', '-batch', '-'], `link set lo up\naddress add ${node.ip}/32 dev lo\n`);
  try {
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  } catch (cause) {
    throw new DemoError(
      'SETUP_FAILED',
      'net.ipv4.ip_forward cannot be set, because /proc/sys is read-only: in a container, run it with docker run --privileged',
      { cause },
    );
  }
}

export function buildSandbox(name: string, ip: string): Sandbox {
  const sandbox = { name, ip };
  run(['ip', 'netns', 'add', name]);
  run(
    ['ip', '-batch', '-'],
    [
      `link add ${name} type veth peer name eth0 netns ${name}`,
      `address add ${node.gateway}/32 dev ${name}`,
      `link set ${name} up`,
      `route add ${ip}/32 dev ${name}`,
    ].join('\n'),
  );
  run(
    [...inside(sandbox), 'ip', '-batch', '-'],
    [
      'link set lo up',
      `address add ${ip}/32 dev eth0`,
      'link set eth0 up',
      `route add ${node.gateway}/32 dev eth0`,
      `route add default via ${node.gateway}`,
    ].join('\n'),
  );
  return sandbox;
}

/** Starts a script of the demo in a sandbox, with a channel for messages. nsenter becomes it: the pid is the script's. */
export function startIn(sandbox: Sandbox, script: 'pod' | 'client', args: readonly string[]): ChildProcess {
  const [program, ...prefix] = inside(sandbox);
  const path = fileURLToPath(new URL(`${script}.js`, import.meta.url));
  return spawn(program, [...prefix, process.execPath, path, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}

/** Resolves when the server process in the pod listens. */
export async function startPod(sandbox: Sandbox, port: number): Promise<ChildProcess> {
  const child = startIn(sandbox, 'pod', [sandbox.name, sandbox.ip, String(port)]);
  await new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('error', reject);
    child.once('exit', () => {
      reject(new DemoError('SETUP_FAILED', `the server of ${sandbox.name} ended before it listened`));
    });
  });
  return child;
}
