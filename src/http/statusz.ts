/** /statusz: since when which version runs, and what can be asked of it. */
import { performance } from 'node:perf_hooks';
import { runtimeVersion } from '../metrics/component.js';
import { processStart } from '../metrics/process.js';
import { present, title } from './negotiate.js';
import type { Route } from './routes.js';

export interface ComponentVersion {
  /** '1.37.2', or with this program's own version behind it. */
  readonly binary: string;
  /** '1.37' */
  readonly emulation: string;
}

/** @param listed paths of the other pages */
export function statuszRoute(version: ComponentVersion, listed: readonly string[]): Route {
  const paths = [...new Set(listed.map((path) => `/${path.split('/')[1] ?? ''}`))].sort();
  const started = new Date(Math.floor(processStart) * 1000);
  return {
    path: '/statusz',
    answer: ({ headers }) => {
      const uptime = Math.floor(performance.now() / 1000);
      return present(
        {
          kind: 'Statusz',
          text: () =>
            [
              title('statusz'),
              `Started: ${unixDate(started)}`,
              `Up: ${hours(uptime)}`,
              `Go version: ${runtimeVersion}`,
              `Binary version: ${version.binary}`,
              `Emulation version: ${version.emulation}`,
              `Paths: ${paths.join(' ')}`,
              '',
            ].join('\n'),
          fields: () => ({
            startTime: started.toISOString().replace('.000Z', 'Z'),
            uptimeSeconds: uptime,
            goVersion: runtimeVersion,
            binaryVersion: version.binary,
            emulationVersion: version.emulation,
            paths,
          }),
        },
        headers.accept,
      );
    },
  };
}

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const;
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'] as const;

/** As date(1) prints it, in UTC: 'Fri Jan  2 03:04:05 UTC 2026'. */
export function unixDate(time: Date): string {
  const day = days[time.getUTCDay()] ?? '';
  const month = months[time.getUTCMonth()] ?? '';
  const date = String(time.getUTCDate()).padStart(2);
  return `${day} ${month} ${date} ${time.toISOString().slice(11, 19)} UTC ${time.getUTCFullYear()}`;
}

/** '1 hr 02 min 03 sec' */
export function hours(seconds: number): string {
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  return `${Math.floor(seconds / 3600)} hr ${two((seconds / 60) % 60)} min ${two(seconds % 60)} sec`;
}
