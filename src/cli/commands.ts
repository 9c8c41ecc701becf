/**
 * Commands beside the proxy itself: `kube-proxy WORD …`. Upstream's kube-proxy takes no words, only flags, so none of these
 * can mean something else there. Each is imported only when it is called.
 */
import { helpCommands } from '../config/flags/help.js';

/** @returns the exit code */
type Command = (args: readonly string[]) => Promise<number>;

const commands: Readonly<Record<(typeof helpCommands)[number]['name'], () => Promise<Command>>> = {
  ipvs: async () => (await import('./show-ipvs.js')).showIpvs,
  'migration-report': async () => (await import('./migration-report.js')).migrationReport,
};

/** The command that the first argument names; undefined: it names none, so the arguments are the proxy's. */
export async function commandNamed(word: string | undefined): Promise<Command | undefined> {
  const found = helpCommands.find(({ name }) => name === word);
  return found === undefined ? undefined : await commands[found.name]();
}
