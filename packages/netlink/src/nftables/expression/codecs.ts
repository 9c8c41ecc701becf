/** Every expression that this package knows: a file with its codec, and a line here. */
export { bitwise } from './bitwise.js';
export { byteorder } from './byteorder.js';
export { cmp } from './cmp.js';
export { counter } from './counter.js';
export { ct } from './ct.js';
export { dynset } from './dynset.js';
export { fib } from './fib.js';
export { hash } from './hash.js';
export { immediate } from './immediate.js';
export { lookup } from './lookup.js';
export { masq } from './masq.js';
export { meta } from './meta.js';
export { nat } from './nat.js';
export { numgen } from './numgen.js';
export { payload } from './payload.js';
export { range } from './range.js';
export { reject } from './reject.js';
