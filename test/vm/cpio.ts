/**
 * Archives in the format that the kernel unpacks as its first file system: cpio "newc"
 * (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
 */

export interface ArchiveEntry {
  /** Relative path. Folders come before what is in them. */
  readonly path: string;
  /** Type and permissions, as in stat: 0o100755 a program, 0o040755 a folder. */
  readonly mode: number;
  readonly content: Buffer;
}

export const programMode = 0o100755;
export const fileMode = 0o100644;
export const folderMode = 0o040755;

/** The archive, uncompressed. */
export function cpio(entries: readonly ArchiveEntry[]): Buffer {
  const end: ArchiveEntry = { path: 'TRAILER!!!', mode: 0, content: Buffer.alloc(0) };
  return Buffer.concat(
    [...entries, end].flatMap((entry, index) => {
      const name = Buffer.from(`${entry.path}\0`);
      // Header fields after the magic number, 8 hexadecimal digits each: inode, mode, owner, group, links, time, size,
      // device (2), device node (2), length of the name, checksum (unused).
      const fields = [index + 1, entry.mode, 0, 0, 1, 0, entry.content.length, 0, 0, 0, 0, name.length, 0];
      const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
      return [aligned(Buffer.concat([Buffer.from(header), name])), aligned(entry.content)];
    }),
  );
}

function aligned(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}
