/**
 * Sends a batch and reads what the kernel says of it (linux/netfilter/nfnetlink.h): all messages take effect at once, or
 * none does.
 */
import {
  addFlags,
  clearFlags,
  closeMessage,
  MESSAGE_HEADER,
  MessageReader,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  openMessage,
  setSequence,
  type Acknowledgement,
} from '../message.js';
import { type NetlinkConnection, rejectionHint } from '../connection.js';
import { readHostU32 } from '../endian.js';
import { NetlinkError } from '../errors.js';
import {
  AF_UNSPEC,
  NFGENMSG,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  writeNfgenmsg,
} from '../nfnetlink.js';
import type { Transport } from '../socket.js';
import type { Batch } from './batch.js';
import { describeMessage } from './describe.js';

/** asm-generic/errno.h; Node has no constant for it. */
const ERESTART = 85;
/** nf_tables_valid_genid() takes it for 'whichever'. */
const ANY_GENERATION = 0;
/** Bytes of a batch's beginning (with the generation) and end. */
export const BATCH_FRAME = 2 * (MESSAGE_HEADER + NFGENMSG) + 8;

/** @param generation see CommitOptions @throws NetlinkError which names the first message that failed */
export function commitBatch(netlink: NetlinkConnection, batch: Batch, generation = ANY_GENERATION): void {
  const { transport } = netlink;
  const { writer } = batch;
  const { length } = writer;
  const count = batch.messageCount;
  const first = netlink.nextSequence(count + 2);
  try {
    const last = frame(batch, first, generation);
    try {
      transport.send(writer.buffer, writer.length);
    } finally {
      clearFlags(writer.buffer, last, NLM_F_ACK);
    }
  } finally {
    writer.length = length;
  }
  awaitCommit(transport, batch, first, count);
}

/**
 * Only the last message asks for an acknowledgement, so that a batch of any size costs one; messages that fail
 * are reported in any case, in order, before it. Failure of the whole (no privilege, no subsystem, wrong generation)
 * is reported for the batch's beginning, and may be all that comes.
 */
function awaitCommit(transport: Transport, batch: Batch, begin: number, count: number): void {
  const last = begin + count;
  let failure: { readonly index: number; readonly answer: Acknowledgement } | undefined;
  for (;;) {
    let messages: MessageReader;
    try {
      messages = new MessageReader(transport.receive(), 'commit batch');
    } catch (error) {
      if (failure !== undefined) throw commitError(batch, failure.index, failure.answer);
      throw error;
    }
    while (messages.next()) {
      const index = messages.sequence - begin - 1;
      if (messages.type !== NLMSG_ERROR || index < -1 || index >= count) continue;
      const answer = messages.acknowledgement();
      if (answer.errno !== 0) failure ??= { index, answer };
      if (messages.sequence !== last && index !== -1) continue;
      if (failure !== undefined) throw commitError(batch, failure.index, failure.answer);
      if (messages.sequence === last) return;
    }
    messages.finish();
  }
}

/**
 * Numbers the messages from `first` (the batch's beginning), has the last one acknowledged and appends the end.
 * Returns where the last message starts.
 */
function frame(batch: Batch, first: number, generation: number): number {
  const { writer } = batch;
  const { length } = writer;
  writer.buffer.writeUInt32BE(generation, batch.generationOffset);
  let sequence = first;
  let last = 0;
  for (let at = 0; at < length; at += readHostU32(writer.buffer, at)) {
    setSequence(writer.buffer, at, sequence++);
    last = at;
  }
  addFlags(writer.buffer, last, NLM_F_ACK);
  const end = openMessage(writer, NFNL_MSG_BATCH_END, NLM_F_REQUEST);
  writeNfgenmsg(writer, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  closeMessage(writer, end);
  setSequence(writer.buffer, end, sequence);
  return last;
}

function commitError(batch: Batch, index: number, answer: Acknowledgement): NetlinkError {
  const bytes = batch.writer.bytes();
  if (index < 0) {
    return new NetlinkError({
      operation: `commit ${batch.messageCount} changes to table "${batch.table}"`,
      errno: answer.errno,
      extendedAck: answer.text,
      hint:
        answer.errno === ERESTART
          ? 'somebody else changed the rules since that generation: read them again'
          : rejectionHint(answer.errno),
    });
  }
  let at = readHostU32(bytes, 0);
  for (let i = 0; i < index; i++) at += readHostU32(bytes, at);
  const description = describeMessage(bytes, at, at + readHostU32(bytes, at), answer.attributeOffset);
  return new NetlinkError({
    operation: description.operation,
    errno: answer.errno,
    extendedAck: answer.text,
    attribute: description.location?.path,
    messageIndex: index,
    elementIndex: description.elementKey === undefined ? undefined : description.location?.listIndex,
    elementKey: description.elementKey,
    hint: rejectionHint(answer.errno),
  });
}
