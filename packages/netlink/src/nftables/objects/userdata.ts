/**
 * User data: what the kernel stores with an object for user space and never reads. nft keeps comments and key
 * types in it as entries of type u8 | length u8 | value (libnftnl's udata), and prints them from there.
 */

/** The kernel's limit for one object (NFT_USERDATA_MAXLEN), bytes. */
export const USERDATA_MAX = 256;
/** nft refuses longer comments; so do we, to keep what we write editable. UTF-8 bytes without the final zero. */
export const COMMENT_MAX = 128;

/** Type of the comment entry of rules, elements, chains and tables alike. */
export const UDATA_COMMENT = 0;

export function userdataEntry(type: number, value: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(type, value.length), value]);
}

export function commentEntry(type: number, comment: string): Buffer {
  const text = Buffer.from(`${comment}\0`);
  if (text.length > COMMENT_MAX + 1) {
    throw new RangeError(`comment has ${text.length - 1} bytes, ${COMMENT_MAX} fit: ${comment}`);
  }
  return userdataEntry(type, text);
}

/** Finds an entry. Others may have written anything here, so whatever doesn't follow the form is not found. */
export function findUserdata(userdata: Buffer, type: number): Buffer | undefined {
  for (let at = 0; at + 2 <= userdata.length;) {
    const end = at + 2 + userdata.readUInt8(at + 1);
    if (end > userdata.length) return undefined;
    if (userdata.readUInt8(at) === type) return userdata.subarray(at + 2, end);
    at = end;
  }
  return undefined;
}

export function findComment(userdata: Buffer, type: number): string | undefined {
  const value = findUserdata(userdata, type);
  if (value === undefined) return undefined;
  const zero = value.indexOf(0);
  return value.toString('utf8', 0, zero < 0 ? value.length : zero);
}
