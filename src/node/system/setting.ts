/** One number in one file: read first, written only when it differs. */
import { systemCode, systemFiles, type SystemFiles } from './files.js';

/**
 * Why a setting could not be made. `code` is stable:
 *  - ERR_SETTING_MISSING: there is no such file
 *  - ERR_SETTING_READ_ONLY: the file system is mounted read-only, as /proc/sys and /sys are in ordinary containers
 *  - ERR_SETTING_NOT_OURS: the kernel lets only the host's network namespace change it
 *  - ERR_SETTING_NOT_PERMITTED: a privilege is missing
 *  - ERR_SETTING_REFUSED: anything else, for one a value that the kernel does not take
 */
export type SettingErrorCode =
  | 'ERR_SETTING_MISSING'
  | 'ERR_SETTING_READ_ONLY'
  | 'ERR_SETTING_NOT_OURS'
  | 'ERR_SETTING_NOT_PERMITTED'
  | 'ERR_SETTING_REFUSED';

export class SettingError extends Error {
  constructor(
    readonly code: SettingErrorCode,
    readonly path: string,
    readonly wanted: string,
    /** undefined: it could not be read. */
    readonly present: string | undefined,
    /** What to do about it. */
    readonly hint: string,
    cause: unknown,
  ) {
    const now = present === undefined ? 'its value could not be read' : `it is ${present}`;
    super(`cannot set ${path} to ${wanted} (${now}): ${hint}`, { cause });
    this.name = 'SettingError';
  }
}

export interface SettingChange {
  readonly changed: boolean;
  /** The value before. undefined: it could not be read. */
  readonly before: string | undefined;
}

/**
 * Makes a setting say `value`.
 * @throws SettingError
 */
export function writeSetting(
  path: string,
  value: string | number,
  files: SystemFiles = systemFiles(),
): SettingChange {
  const wanted = String(value);
  let before: string | undefined;
  try {
    before = files.read(path);
    if (before === wanted) return { changed: false, before };
  } catch (error) {
    // Some settings can be written but not read; one that is not there can't be written either.
    if (systemCode(error) === 'ENOENT') throw settingError(files, path, wanted, undefined, error);
  }
  try {
    files.write(path, wanted);
  } catch (error) {
    throw settingError(files, path, wanted, before, error);
  }
  return { changed: true, before };
}

/**
 * Makes a sysctl say `value`.
 * @param name with slashes: 'net/ipv4/ip_forward'
 * @throws SettingError
 */
export function setSysctl(name: string, value: string | number, files?: SystemFiles): SettingChange {
  return writeSetting(sysctlPath(name), value, files);
}

export function sysctlPath(name: string): string {
  return `/proc/sys/${name}`;
}

function settingError(
  files: SystemFiles,
  path: string,
  wanted: string,
  present: string | undefined,
  cause: unknown,
): SettingError {
  const [code, hint] = explain(files, path, wanted, cause);
  return new SettingError(code, path, wanted, present, hint, cause);
}

function explain(
  files: SystemFiles,
  path: string,
  wanted: string,
  cause: unknown,
): [code: SettingErrorCode, hint: string] {
  // In a shell of the operator's, `self` would be the shell.
  const target = path.replace(/^\/proc\/self\//, `/proc/${process.pid}/`);
  const onHost = `set it on the host with '${hostCommand(target, wanted)}'`;
  const aboutUs = target !== path;
  switch (systemCode(cause)) {
    case 'ENOENT':
      return ['ERR_SETTING_MISSING', 'this kernel, or this network namespace, has no such setting'];
    case 'EROFS':
      return [
        'ERR_SETTING_READ_ONLY',
        `${path.startsWith('/sys/') ? '/sys' : '/proc/sys'} is mounted read-only here: run the container privileged, or ${onHost}`,
      ];
    case 'EACCES':
    case 'EPERM':
      if (!files.hasWriteMode(path)) {
        return [
          'ERR_SETTING_NOT_OURS',
          `only the host's network namespace may change it: use hostNetwork, or ${onHost}`,
        ];
      }
      return [
        'ERR_SETTING_NOT_PERMITTED',
        aboutUs
          ? 'not permitted: the container needs the capability SYS_RESOURCE'
          : `not permitted: run as root in a privileged container, or ${onHost}`,
      ];
    default:
      return [
        'ERR_SETTING_REFUSED',
        `the kernel refused it: ${cause instanceof Error ? cause.message : String(cause)}`,
      ];
  }
}

function hostCommand(path: string, wanted: string): string {
  const prefix = sysctlPath('');
  return path.startsWith(prefix)
    ? `sysctl -w ${path.slice(prefix.length).replaceAll('/', '.')}=${wanted}`
    : `echo ${wanted} > ${path}`;
}
