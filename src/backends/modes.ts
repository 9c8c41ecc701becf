/** The modes that there are. A new one is a folder here and a line in this list. */
import { addProxyMode } from '../config/modes.js';
import { iptables } from './iptables/mode.js';
import { ipvs } from './ipvs/mode.js';
import type { Mode } from './mode.js';
import { nftables } from './nftables/mode.js';

const modes = new Map<string, Mode>();

/** Makes a mode known to `--proxy-mode`, the automatic choice left alone. @throws Error when its name is taken */
export function registerMode(mode: Mode): void {
  if (modes.has(mode.name)) throw new Error(`there is a mode ${mode.name} already`);
  modes.set(mode.name, mode);
  addProxyMode(mode.name);
}

for (const mode of [nftables, iptables, ipvs]) registerMode(mode);

/** What an empty `mode` tries, in this order: the best first. */
export const automaticChoice: readonly Mode[] = [nftables, iptables];

export function modeNamed(name: string): Mode | undefined {
  return modes.get(name);
}

export function allModes(): readonly Mode[] {
  return [...modes.values()];
}
