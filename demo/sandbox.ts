/**
 * A place where the demo may do what it likes: network, mount and process namespaces of its own, and, for an ordinary
 * user, a user namespace in which it is root. The kernel takes all of it down when the process inside ends, however it
 * ends, so there is nothing to clean up and nothing that a `kill -9` could leave behind.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, dirname } from 'node:path';
import { DemoError } from './errors.js';

const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child'];
const userNamespace = ['--user', '--map-root-user'];

/** What stands between this process and its own namespaces. Settings are undefined where the kernel has no such file. */
export interface Obstacle {
  readonly root: boolean;
  /** What `unshare` printed. */
  readonly reason: string;
  /** /proc/sys/user/max_user_namespaces */
  readonly maxUserNamespaces: number | undefined;
  /** /proc/sys/kernel/unprivileged_userns_clone (Debian) */
  readonly unprivilegedClone: number | undefined;
  /** /proc/sys/kernel/apparmor_restrict_unprivileged_userns (Ubuntu) */
  readonly apparmorRestriction: number | undefined;
}

/** One line: what is missing and what to do. */
export function explainObstacle(obstacle: Obstacle): string {
  const { root, reason } = obstacle;
  const asRoot = 'run it as root (sudo make demo)';
  if (root) {
    return `root may not make network namespaces here (${reason}): in a container, give it the capabilities SYS_ADMIN and NET_ADMIN and no seccomp filter (docker run --privileged)`;
  }
  const sysctl = (setting: string): string =>
    `an ordinary user may not make namespaces here: ${asRoot}, or allow it with: sudo sysctl -w ${setting}`;
  if (obstacle.maxUserNamespaces === 0) return sysctl('user.max_user_namespaces=10000');
  if (obstacle.unprivilegedClone === 0) return sysctl('kernel.unprivileged_userns_clone=1');
  if ((obstacle.apparmorRestriction ?? 0) > 0)
    return sysctl('kernel.apparmor_restrict_unprivileged_userns=0');
  return `an ordinary user may not make namespaces here (${reason}): ${asRoot}`;
}

function sysctlNumber(path: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(`/proc/sys/${path}`, 'utf8'), 10);
  } catch {
    return undefined;
  }
}

/** Tools live in sbin, which an ordinary user's PATH may lack; `node` is the one that runs this. */
function environment(): NodeJS.ProcessEnv {
  const path = [dirname(process.execPath), process.env['PATH'], '/usr/sbin', '/sbin'];
  return { ...process.env, PATH: path.filter((part) => part !== undefined).join(delimiter) };
}

/** Returns undefined when a process can be started with these flags, else the reason. */
function refusal(flags: readonly string[]): string | undefined {
  const { error, status, stderr } = spawnSync(
    'unshare',
    [...flags, 'mount', '-t', 'tmpfs', 'tmpfs', '/run'],
    {
      encoding: 'utf8',
      env: environment(),
    },
  );
  if (error !== undefined) {
    throw new DemoError('NO_NAMESPACES', 'the command unshare is missing: install the package util-linux', {
      cause: error,
    });
  }
  if (status === 0) return undefined;
  return stderr.trim().split('\n').at(-1) ?? 'no reason given';
}

function chooseFlags(): string[] {
  const root = process.getuid?.() === 0;
  const choices = [...(root ? [namespaces] : []), [...userNamespace, ...namespaces]];
  let reason: string | undefined;
  for (const flags of choices) {
    const refused = refusal(flags);
    if (refused === undefined) return flags;
    // As root, what stops the straight way is what has to be mended.
    reason ??= refused;
  }
  throw new DemoError(
    'NO_NAMESPACES',
    explainObstacle({
      root,
      reason: reason ?? 'no reason given',
      maxUserNamespaces: sysctlNumber('user/max_user_namespaces'),
      unprivilegedClone: sysctlNumber('kernel/unprivileged_userns_clone'),
      apparmorRestriction: sysctlNumber('kernel/apparmor_restrict_unprivileged_userns'),
    }),
  );
}

/**
 * Runs a script of ours inside; resolves with its exit status.
 *
 * @throws {DemoError} NO_NAMESPACES
 */
export async function runInside(script: string, args: readonly string[]): Promise<number> {
  if (process.platform !== 'linux') {
    throw new DemoError('NO_NAMESPACES', `the demo needs a Linux kernel, and this is ${process.platform}`);
  }
  // The channel is there for its end: when this process dies, the one inside is told (endWithParent).
  const child = spawn('unshare', [...chooseFlags(), process.execPath, script, ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: environment(),
  });
  // A terminal sends Ctrl-C to both; the one inside ends the show, and this one reports how.
  process.on('SIGINT', () => undefined);
  process.once('SIGTERM', () => {
    child.disconnect();
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      resolve(code ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}

/** Inside: this process ends with the one that called `runInside`, and on Ctrl-C. */
export function endWithParent(): void {
  const end = (status: number) => (): void => {
    process.exit(status);
  };
  process.once('disconnect', end(143));
  process.once('SIGINT', end(130));
  process.once('SIGTERM', end(143));
}
