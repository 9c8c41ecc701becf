/** Runs the system's own tools (ip, nft). */
import { spawn } from 'node:child_process';

export class CommandError extends Error {
  readonly code = 'ERR_CONFORMANCE_COMMAND';
}

/** Standard output of the command. A non-zero exit status is an error that carries what the command said. */
export function run(command: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.stdin.on('error', () => undefined);
    child.on('error', (error) => {
      reject(
        new CommandError(
          `cannot run ${command}: ${error.message}. It comes with Debian's packages iproute2 (ip) and nftables (nft).`,
          { cause: error },
        ),
      );
    });
    child.on('close', (status) => {
      if (status === 0) resolve(stdout);
      else
        reject(
          new CommandError(
            `${[command, ...args].join(' ')} exited with ${status ?? 'a signal'}: ${stderr.trim()}`,
          ),
        );
    });
    child.stdin.end(input);
  });
}

export async function runQuietly(command: string, args: readonly string[], input = ''): Promise<void> {
  await run(command, args, input).catch(() => undefined);
}
