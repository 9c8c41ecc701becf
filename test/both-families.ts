/** What the program says once the rules of both families are in the kernel, whichever comes first. */
export const bothCompared =
  /(?=[^]*"Kernel state compared and completed"[^\n]* family="IPv4")[^]*"Kernel state compared and completed"[^\n]* family="IPv6"/;
