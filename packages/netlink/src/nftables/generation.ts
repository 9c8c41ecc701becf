/**
 * The ruleset's generation (enum nft_gen_attributes): a number that every commit increases, and who did it.
 *
 *     ID(1) be32 | PROC_PID(2) be32 | PROC_NAME(3) string
 */
import type { AttributeDecoder } from '../attribute.js';

const NFTA_GEN = { ID: 1, PROC_PID: 2, PROC_NAME: 3 } as const;

/** Of the rules of a network namespace (linux/netfilter/nf_tables.h, enum nft_gen_attributes). */
export interface Generation {
  readonly id: number;
  /** Process that made it, as the reader's process id namespace sees it. */
  readonly processId: number;
  /** First 15 bytes of its name. */
  readonly processName: string;
}

export function decodeGeneration(d: AttributeDecoder): Generation {
  let [id, processId] = [0, 0];
  let processName = '';
  while (d.next()) {
    if (d.type === NFTA_GEN.ID) id = d.u32();
    else if (d.type === NFTA_GEN.PROC_PID) processId = d.u32();
    else if (d.type === NFTA_GEN.PROC_NAME) processName = d.string();
  }
  return { id, processId, processName };
}
