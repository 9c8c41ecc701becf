/** The names that `--proxy-mode` takes, and whose settings are in force with each. */

/** Modes with settings of their own. */
export const proxyModes = ['nftables', 'iptables', 'ipvs'] as const;
export type ProxyMode = (typeof proxyModes)[number];

const names: string[] = [...proxyModes];

/** Every mode that there is (backends/modes.ts). */
export const proxyModeNames: readonly string[] = names;

/** Lets `--proxy-mode` take another name. */
export function addProxyMode(name: string): void {
  if (!names.includes(name)) names.push(name);
}

/**
 * The mode whose settings are in force: the automatic choice follows those of mode iptables, upstream's default; modes
 * without settings of their own follow those of mode nftables.
 */
export function settingsMode(mode: string): ProxyMode {
  if (mode === '') return 'iptables';
  return proxyModes.find((known) => known === mode) ?? 'nftables';
}
