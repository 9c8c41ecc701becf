/** Which Services have ports that the kernel refuses, from what each family's syncs say. */
import type { IPFamily } from '../model/types.js';
import type { Rejection } from '../sync/rejections.js';
import type { InvalidObjects } from './invalid-objects.js';

/** Ports of one Service that are named; more are counted. */
const maxNamed = 4;

export class RejectedServices {
  private readonly byFamily = new Map<IPFamily, ReadonlyMap<string, Rejection>>();
  /** Keys of the Services last told of. */
  private reported = new Set<string>();

  /** @param uidOf of a Service, by 'namespace/name' */
  constructor(
    private readonly objects: InvalidObjects,
    private readonly uidOf: (service: string) => string,
  ) {}

  /** @param refused all that the kernel refuses of this family, by key of the service port */
  update(family: IPFamily, refused: ReadonlyMap<string, Rejection>): void {
    this.byFamily.set(family, new Map(refused));
    const services = new Map<string, string[]>();
    for (const [of, refusals] of this.byFamily) {
      for (const [key, { servicePort, message }] of refusals) {
        const service = serviceOf(key);
        const details = services.get(service) ?? [];
        details.push(`${servicePort} (${of}): ${message}`);
        services.set(service, details);
      }
    }
    for (const key of this.reported) if (!services.has(key)) this.report(key, []);
    for (const [key, details] of services) this.report(key, details);
    this.reported = new Set(services.keys());
  }

  private report(key: string, details: readonly string[]): void {
    const slash = key.indexOf('/');
    const object = { kind: 'Service', namespace: key.slice(0, slash), name: key.slice(slash + 1) };
    const first = details.slice(0, maxNamed);
    this.objects.set(
      'kernel_refused',
      { ...object, uid: this.uidOf(key) },
      first,
      details.length - first.length,
    );
  }
}

/** 'namespace/name' of 'namespace/name:portName/PROTOCOL'. Names of objects have no colon. */
function serviceOf(key: string): string {
  const colon = key.indexOf(':');
  return colon < 0 ? key : key.slice(0, colon);
}
