/** What deploy/Dockerfile copies into the image is enough to run the program; and the package of the program itself. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { pack, root, run, strays } from './pack.js';

const scratch = mkdtempSync(join(tmpdir(), 'kube-proxy-image-'));
after(() => {
  rmSync(scratch, { recursive: true, force: true });
});

const dockerfile = readFileSync(join(root, 'deploy', 'Dockerfile'), 'utf8').replaceAll('\\\n', '');
const image = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '));

interface Lock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
}

/** node_modules as `npm prune --omit=dev` leaves it. */
function copyProductionModules(target: string): void {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as Lock;
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (!path.startsWith('node_modules/') || dev === true || !existsSync(join(root, path))) continue;
    const to = join(target, path.slice('node_modules/'.length));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(join(root, path), to, { recursive: true, verbatimSymlinks: true });
  }
}

/** Carries out the image's own COPY lines from the build, and the removal of tests behind them, below `to`. */
function buildImage(to: string): void {
  const copies = [...image.matchAll(/^COPY --from=build \/build\/(\S+) (\/\S+)$/gm)];
  assert.ok(copies.length > 3, 'the Dockerfile copies nothing from the build');
  for (const [, source = '', target = ''] of copies) {
    if (source === 'node_modules') copyProductionModules(join(to, target));
    else cpSync(join(root, source), join(to, target), { recursive: true });
  }
  const [removal] = /find \/opt\/\S+ [^&]*-delete/.exec(image) ?? [];
  assert.ok(removal !== undefined, 'the Dockerfile removes no tests');
  run('sh', ['-c', removal.replaceAll('/opt/', `${to}/opt/`)], to);
}

test('the image runs: the program, and every entry of the netlink package', () => {
  buildImage(scratch);
  const installed = join(scratch, 'opt', 'kube-proxy');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const printed = run(process.execPath, [join(installed, 'bin', 'kube-proxy'), '--version'], scratch);
  assert.ok(printed.includes(version), printed);
  // Its own modules and those of the library, loaded from where the image has them.
  const script = `for (const entry of ['', '/nftables', '/conntrack', '/rtnetlink', '/ipvs', '/ipset', '/xtables'])
      await import('@kube-proxy-ts/netlink' + entry);
    await import('${join(installed, 'dist', 'src', 'app', 'run.js')}');
    const { NetlinkSocket, NETLINK_ROUTE } = await import('@kube-proxy-ts/netlink');
    NetlinkSocket.open(NETLINK_ROUTE).close();`;
  run(process.execPath, ['--input-type=module', '--eval', script], installed);
  const files = readdirSync(installed, { recursive: true, encoding: 'utf8' });
  const ours = files.filter((name) => !name.startsWith('node_modules'));
  assert.deepEqual(strays(ours), []);
});

test('the package of the program holds what it runs, and no test', () => {
  const { paths } = pack('--dry-run');
  assert.deepEqual(strays(paths), []);
  for (const path of ['bin/kube-proxy', 'dist/src/cli/main.js', 'README.md', 'LICENSE', 'package.json']) {
    assert.ok(paths.includes(path), path);
  }
});
