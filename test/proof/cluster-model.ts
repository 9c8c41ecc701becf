/** The program's own way from the API's objects to changed service ports, fed with the difference of two clusters. */
import { endpointSliceFromJson, serviceFromJson } from '../../src/sources/kube/decode/json/objects.js';
import type { JsonObject } from '../../src/sources/kube/decode/json/fields.js';
import { StringTable } from '../../src/sources/strings.js';
import { ServiceModel } from '../../src/model/model.js';
import type { FamilyChanges } from '../../src/model/types.js';
import type { Cluster, Family } from '../soak/objects.js';
import { nodeAddress, nodeName } from './world.js';

export class ClusterModel {
  readonly model: ServiceModel;
  private readonly strings = new StringTable();
  private before: Pick<Cluster, 'services' | 'slices'> = { services: new Map(), slices: new Map() };

  constructor(private readonly family: Family) {
    this.model = new ServiceModel({
      nodeName,
      nodeIPs: { [family]: nodeAddress(family) },
      families: [family],
      externalIPs: true,
    });
  }

  follow(cluster: Cluster): FamilyChanges {
    for (const [key, object] of changed(this.before.services, cluster.services)) {
      const json = object as JsonObject | undefined;
      this.model.setService(key, json === undefined ? undefined : serviceFromJson(json, this.strings));
    }
    for (const [key, object] of changed(this.before.slices, cluster.slices)) {
      const json = object as JsonObject | undefined;
      this.model.setEndpointSlice(
        key,
        json === undefined ? undefined : endpointSliceFromJson(json, this.strings),
      );
    }
    this.before = cluster;
    const changes = this.model.takeChanges().families.find(({ family }) => family === this.family);
    if (changes === undefined) throw new Error(`the model does not tell of ${this.family}`);
    return changes;
  }
}

function changed<T>(before: ReadonlyMap<string, T>, now: ReadonlyMap<string, T>): [string, T | undefined][] {
  const keys = new Set([...before.keys(), ...now.keys()]);
  return [...keys].filter((key) => before.get(key) !== now.get(key)).map((key) => [key, now.get(key)]);
}
