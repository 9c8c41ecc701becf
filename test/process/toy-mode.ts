/**
 * kube-proxy with a mode more: it writes what it would program into a file, TOY_MODE_FILE. It stands for any mode that somebody
 * adds: nothing in src/ knows of it.
 */
import { renameSync, writeFileSync } from 'node:fs';
import type { ApplyReport, Dataplane } from '../../src/backends/backend.js';
import type { Mode, OpenOptions } from '../../src/backends/mode.js';
import { registerMode } from '../../src/backends/modes.js';
import { main } from '../../src/cli/main.js';
import type { IPFamily, ServicePort } from '../../src/model/types.js';

const file = process.env['TOY_MODE_FILE'] ?? '';
const programmed = new Map<string, string>();

const wrote = (transactions: number): ApplyReport => ({
  transactions,
  elementsAdded: 0,
  elementsDeleted: 0,
  kernelMs: 0,
  failures: [],
});

function save(): ApplyReport {
  // Readers see a whole file.
  writeFileSync(`${file}.next`, JSON.stringify(Object.fromEntries(programmed)));
  renameSync(`${file}.next`, file);
  return wrote(1);
}

function dataplane(family: IPFamily): Dataplane {
  const keyOf = (key: string): string => `${family} ${key}`;
  const set = (port: ServicePort): void => {
    programmed.set(
      keyOf(port.key),
      port.clusterEndpoints.map(({ ip, port: number }) => `${ip}:${String(number)}`).join(' '),
    );
  };
  return {
    family,
    resync: (wanted) => {
      for (const port of wanted) set(port);
      return Promise.resolve(save());
    },
    apply: ({ upserted, removed }) => {
      for (const port of upserted) set(port);
      for (const key of removed) programmed.delete(keyOf(key));
      return Promise.resolve(save());
    },
    setServiceCIDRs: () => wrote(0),
    setNodePortAddresses: () => wrote(0),
    deferredDueAt: undefined,
    deleteDeferred: () => Promise.resolve(wrote(0)),
    maintain: () => wrote(0),
    close: () => undefined,
  };
}

const toy: Mode = {
  name: 'toy',
  metrics: 'nftables',
  loopbackNodePorts: false,
  acceptsForHost: true,
  owned: { tables: [{ name: 'toy-kube-proxy' }], ownsChain: () => false, ipsets: new Set() },
  probe: () => (file === '' ? new Error('TOY_MODE_FILE is not set') : undefined),
  open: ({ families }: OpenOptions) => ({
    dataplanes: families.map(dataplane),
    keeps: () => ({ mode: 'toy' }),
    ruleStatistics: () => undefined,
    stopWatching: () => Promise.resolve(),
  }),
};

registerMode(toy);
process.exit(await main(process.argv.slice(2)));
