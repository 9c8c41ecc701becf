/** The tables of the legacy kind of iptables, read and replaced through socket options instead of netlink. */
export * from './kernel.js';
export * from './lock.js';
export * from './table.js';
export { tryLock } from '../libc.js';
