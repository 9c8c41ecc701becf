/** For tests of what is built on this package: network namespaces, a scripted socket, made-up connection tracking entries. */
export * from './fake-transport.js';
export * from './namespace.js';
export * from './random.js';
export * from '../conntrack/testing.js';
