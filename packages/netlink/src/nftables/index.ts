/** nftables over netlink: atomic batches of changes, dumps, notifications. */
export { Batch, BatchMemory } from './batch.js';
export type { BaseChain, ChainInfo, ChainType, Hook, Policy } from './objects/chain.js';
export { type CommitOptions, NftablesConnection } from './connection.js';
export { accept, continueRule, drop, goTo, isVerdict, jumpTo, returnToCaller, type Verdict } from './data.js';
export type { ElementInfo, ElementOptions, OnElement } from './objects/element.js';
export { CT_STATE, CT_STATUS } from './expression/ct.js';
export { FIB_TYPE } from './expression/fib.js';
export {
  canonicalExpressions,
  describeExpression,
  expr,
  type Expression,
  normaliseExpressions,
  sameExpressions,
  type UnknownExpression,
} from './expression/index.js';
export { PORT_UNREACHABLE } from './expression/reject.js';
export { type Field, fieldsLength, loadFields, selectors, types } from './field.js';
export type { Generation } from './generation.js';
export {
  type ChangeNotification,
  type GenerationNotification,
  type Notification,
  type NotificationHandlers,
  subscribeNftables,
} from './notification.js';
export {
  r0,
  r1,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  r2,
  r3,
  r4,
  r5,
  r6,
  r7,
  r8,
  r9,
  type Register,
  registerAfter,
} from './register.js';
export { removeTable } from './remove-table.js';
export type { RuleInfo } from './objects/rule.js';
export { sameSetDefinition, type SetDefinition, type SetInfo } from './objects/set.js';
export type { TableInfo } from './objects/table.js';
export { COMMENT_MAX } from './objects/userdata.js';
