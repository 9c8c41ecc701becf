/** The files under /proc and /sys that the kernel is tuned through, behind an interface that tests can stand in for. */
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

/** Paths are absolute. Failures are Node's own errors, with a `code` such as ENOENT, EACCES or EROFS. */
export interface SystemFiles {
  /** The whole text, blanks at both ends cut off. */
  read(file: string): string;
  /** In one write, as the kernel wants it. Never creates the file. */
  write(file: string, text: string): void;
  exists(file: string): boolean;
  /** Names of the entries of a folder. */
  list(folder: string): string[];
  /** Whether the file's mode lets its owner write. The kernel takes it away from settings that others own. */
  hasWriteMode(file: string): boolean;
}

/** @param root where the tree of files begins; not '/' only in tests */
export function systemFiles(root = '/'): SystemFiles {
  const at = (file: string): string => path.join(root, file);
  return {
    read: (file) => readFileSync(at(file), 'utf8').trim(),
    write: (file, text) => {
      const fd = openSync(at(file), constants.O_WRONLY | constants.O_TRUNC);
      try {
        writeSync(fd, text);
      } finally {
        closeSync(fd);
      }
    },
    exists: (file) => existsSync(at(file)),
    list: (folder) => readdirSync(at(folder)),
    hasWriteMode: (file) => (statSync(at(file)).mode & constants.S_IWUSR) !== 0,
  };
}

/** 'ENOENT' and the like from whatever was thrown; undefined when it is no system error. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
