/** The netlink package as its users get it: packed, unpacked beside a project of theirs, imported and type-checked. */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { undocumented } from './documented.js';
import { pack, root, run, strays } from './pack.js';

const scratch = mkdtempSync(join(tmpdir(), 'netlink-package-'));
after(() => {
  rmSync(scratch, { recursive: true, force: true });
});

const packed = pack('-w', '@kube-proxy-ts/netlink', '--pack-destination', scratch);
const { name, exports } = JSON.parse(
  readFileSync(join(root, 'packages', 'netlink', 'package.json'), 'utf8'),
) as { readonly name: string; readonly exports: Readonly<Record<string, string>> };

test('the package holds every entry with its types, and no test', () => {
  assert.deepEqual(strays(packed.paths), []);
  for (const path of ['README.md', 'LICENSE', 'package.json', 'examples/nftables.ts']) {
    assert.ok(packed.paths.includes(path), path);
  }
  for (const target of Object.values(exports)) {
    const path = target.replace(/^\.\//, '');
    assert.ok(packed.paths.includes(path), path);
    assert.ok(packed.paths.includes(path.replace(/\.js$/, '.d.ts')), `types of ${path}`);
  }
  // Source maps lead to sources that are there.
  for (const path of packed.paths.filter((candidate) => candidate.endsWith('.js.map'))) {
    const source = path.replace(/^dist/, 'src').replace(/\.js\.map$/, '.ts');
    assert.ok(packed.paths.includes(source), source);
  }
});

test('a project imports every entry, and its types hold in strict mode', () => {
  const project = join(scratch, 'project');
  const modules = join(project, 'node_modules');
  mkdirSync(join(modules, '@kube-proxy-ts'), { recursive: true });
  run('tar', ['-xzf', join(scratch, packed.filename), '-C', scratch], scratch);
  cpSync(join(scratch, 'package'), join(modules, ...name.split('/')), { recursive: true });
  for (const module of ['koffi', '@types', 'undici-types']) {
    symlinkSync(join(root, 'node_modules', module), join(modules, module));
  }
  cpSync(join(scratch, 'package', 'examples'), join(project, 'examples'), { recursive: true });
  writeFileSync(join(project, 'package.json'), '{ "type": "module" }\n');
  const entries = Object.keys(exports).map((entry) => name + entry.slice(1));
  writeFileSync(
    join(project, 'entries.ts'),
    entries.map((entry, i) => `export * as entry${i} from '${entry}';\n`).join(''),
  );
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'ES2022',
        module: 'NodeNext',
        moduleResolution: 'NodeNext',
        types: ['node'],
        strict: true,
        noEmitOnError: true,
        skipLibCheck: false,
        outDir: 'out',
        rootDir: '.',
      },
      include: ['entries.ts', 'examples'],
    }),
  );
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.'], project);
  const script = `const entries = await import('./out/entries.js');
    console.log(Object.values(entries).map((entry) => Object.keys(entry).length > 0).join());`;
  const printed = run(process.execPath, ['--input-type=module', '--eval', script], project);
  assert.equal(printed.trim(), entries.map(() => 'true').join());
});

test('what is not exported can not be imported', () => {
  assert.throws(
    () => run(process.execPath, ['--input-type=module', '--eval', `import '${name}/dist/socket.js'`], root),
    /ERR_PACKAGE_PATH_NOT_EXPORTED/,
  );
});

test('every exported name and method says what it is', () => {
  assert.deepEqual(undocumented(join(root, 'packages', 'netlink', 'dist')), []);
});
