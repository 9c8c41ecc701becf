/** What the program says once the rules of both families are in the kernel, whichever comes first. */
export const bothCompared =
  /(?=[^]*"Resync complete"[^\n]* family="IPv4")[^]*"Resync complete"[^\n]* family="IPv6"/;
