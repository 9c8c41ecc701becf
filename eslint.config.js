// Strict linting, and the rule that holds the import boundaries of docs/architecture.md.
import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/**
 * A folder of src/ may import only from the folders listed for it (and from itself). 'netlink' is the package of that
 * name. docs/architecture.md shows the same as a table.
 */
const mayImport = {
  callbacks: [],
  exit: [],
  version: [],
  yaml: [],
  log: [],
  sources: ['log'],
  model: ['sources'],
  backends: ['config', 'node', 'model', 'log', 'netlink'],
  conntrack: ['model', 'log', 'netlink'],
  leftovers: ['backends', 'netlink'],
  health: ['model'],
  metrics: [],
  http: ['health', 'metrics', 'log'],
  config: ['model'],
  node: ['config', 'model', 'log', 'netlink'],
  sync: ['backends', 'health', 'metrics', 'model', 'sources', 'log', 'netlink'],
  reporting: ['health', 'metrics', 'model', 'sources', 'sync', 'log', 'netlink'],
  inspect: ['sources', 'backends', 'model', 'netlink'],
};
/** Anybody may import these. */
const everybodys = ['callbacks', 'exit', 'version', 'yaml'];
/** Composition and commands: they know all others, and nobody knows them (but cli starts app). */
const rooms = [...Object.keys(mayImport), 'app', 'cli'].filter((room) => !everybodys.includes(room));

const boundaries = Object.entries(mayImport).map(([room, allowed]) => ({
  files: [`src/${room}/**/*.ts`],
  ignores: ['**/*.test.ts', '**/testing/**'],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            regex: `^(\\.\\./)+(${rooms.filter((r) => r !== room && !allowed.includes(r)).join('|')})/`,
            message: `src/${room} may import only from: ${[room, ...allowed].join(', ')} (docs/architecture.md)`,
          },
          ...(allowed.includes('netlink')
            ? []
            : [
                {
                  regex: '^@kube-proxy-ts/netlink',
                  message: `src/${room} does not speak to the kernel (docs/architecture.md)`,
                },
              ]),
        ],
      },
    ],
  },
}));

const backends = ['nftables', 'iptables', 'ipvs', 'ebpf', 'userspace'];
const backendBoundaries = backends.map((backend) => ({
  files: [`src/backends/${backend}/**/*.ts`],
  ignores: ['**/*.test.ts', '**/testing/**'],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            regex: `^(\\.\\./)+(${[...backends.filter((b) => b !== backend), ...rooms.filter((r) => !['config', 'node', 'model', 'log', 'backends'].includes(r))].join('|')})/`,
            message:
              'backends never import each other, and only config, node, model and log of the other folders',
          },
        ],
      },
    ],
  },
}));

/** The library stands alone: what it needs of others is a package. */
const libraryBoundary = {
  files: ['packages/*/src/**/*.ts'],
  rules: {
    'no-restricted-imports': [
      'error',
      { patterns: [{ regex: '(^|/)src/', message: 'a package imports nothing of the program' }] },
    ],
  },
};

/** What such a callback throws has no caller: it would end the process. */
const unguarded = 'wrap the callback in guarded() of src/callbacks, or an exception in it ends the process';
const guardedCallbacks = {
  files: ['src/**/*.ts', 'packages/*/src/**/*.ts'],
  ignores: ['**/*.test.ts', '**/testing/**'],
  rules: {
    'no-restricted-syntax': [
      'error',
      {
        selector:
          'CallExpression[callee.name=/^set(Timeout|Interval|Immediate)$/][arguments.0.type=/Function/]',
        message: unguarded,
      },
      {
        // What does nothing can't fail.
        selector:
          'CallExpression[callee.property.name=/^(on|once|addListener)$/][arguments.1.type=/Function/]:not([arguments.1.body.name="undefined"])',
        message: unguarded,
      },
      { selector: 'CallExpression[callee.name="watch"][arguments.2.type=/Function/]', message: unguarded },
      { selector: 'PrivateIdentifier', message: 'write `private x`, as everywhere else' },
    ],
  },
};

/** One way of writing: `private x`, and camelCase for what is not a name of the kernel's headers. */
const oneStyle = {
  files: ['src/**/*.ts', 'test/**/*.ts', 'bench/**/*.ts', 'demo/**/*.ts'],
  rules: {
    '@typescript-eslint/naming-convention': [
      'error',
      {
        selector: 'variable',
        modifiers: ['const', 'global'],
        types: ['boolean', 'string', 'number', 'array'],
        format: ['camelCase'],
        filter: {
          regex:
            '^(SO|SOL|SOCK|SCTP|IP|IPV4|IPV6|IPPROTO|TCP|POLL[A-Z]*|NLM|NLMSG|NFTA|NETLINK|MSG|AF|CLOCK|CTNETLINK|E[A-Z]+|[LR][12]|[A-Z0-9_]*[a-z].*)(_|$)',
          match: false,
        },
      },
    ],
  },
};
export default tseslint.config(
  { ignores: ['dist/**', 'packages/*/dist/**', 'node_modules/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      eqeqeq: 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
  {
    // node:test returns promises that the runner awaits by itself.
    files: ['**/*.test.ts', 'test/**/*.ts', 'bench/**/*.ts', 'packages/*/examples/testing.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  { files: ['**/*.js', 'bin/*'], languageOptions: { globals: { process: 'readonly', console: 'readonly' } } },
  oneStyle,
  guardedCallbacks,
  ...boundaries,
  ...backendBoundaries,
  libraryBoundary,
);
