/**
 * ServiceCIDR (k8s.io/api/networking/v1/generated.proto):
 *
 *     ServiceCIDR:  1 metadata   2 spec: 1 cidrs*
 */
import { appended, emptyList } from '../decoded.js';
import type { ServiceCIDR } from '../../../objects.js';
import { readMetadata, type Metadata } from './metadata.js';
import type { ProtoReader } from './wire.js';

/** The reader spans one ServiceCIDR message. */
export function readServiceCIDR(reader: ProtoReader, meta: Metadata): ServiceCIDR {
  meta.clear();
  let cidrs: readonly string[] = emptyList;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      readMetadata(reader, meta);
    } else if (field === 2) {
      const outer = reader.open();
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 1) cidrs = appended(cidrs, reader.text());
        else reader.skip();
      }
      reader.close(outer);
    } else {
      reader.skip();
    }
  }
  return { name: meta.name, cidrs };
}
