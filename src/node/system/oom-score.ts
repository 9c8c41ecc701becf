/** How ready the kernel is to end this process when memory runs out. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../../log/logger.js';
import { systemFiles, type SystemFiles } from './files.js';
import { SettingError, writeSetting } from './setting.js';

const scorePath = '/proc/self/oom_score_adj';
const attempts = 2;
const pauseMs = 100;

/**
 * Sets the process's OOM score adjustment. Less than it was needs CAP_SYS_RESOURCE; without it a line in the log says
 * so and nothing else happens, because the proxy works all the same.
 * @param score from -1000 (never) to 1000 (first)
 * @returns whether the score is now as wanted
 */
export async function setOOMScore(
  score: number,
  log: Logger,
  files: SystemFiles = systemFiles(),
): Promise<boolean> {
  for (let attempt = 1; ; attempt++) {
    try {
      const { changed, before } = writeSetting(scorePath, score, files);
      if (changed) log.debug(2, 'Set the OOM score', { before, now: score });
      return true;
    } catch (error) {
      const retry = error instanceof SettingError && error.code !== 'ERR_SETTING_MISSING';
      if (!retry || attempt === attempts) {
        log.info('OOM score not set: needs the capability SYS_RESOURCE', {
          wanted: score,
          problem: error,
        });
        return false;
      }
    }
    await sleep(pauseMs);
  }
}
