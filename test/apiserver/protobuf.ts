/**
 * Kubernetes protobuf, the writing side: tables of field numbers (from the .proto files of k8s.io/api and
 * k8s.io/apimachinery) and one encoder that walks JSON along them. The numbers are written down here a second time on
 * purpose: a mistake in the program's readers does not cancel out against the same mistake here.
 */

type Field =
  | {
      readonly number: number;
      readonly type: 'text' | 'integer' | 'boolean' | 'time' | 'textMap' | 'intOrString';
    }
  | { readonly number: number; readonly type: 'message'; readonly fields: Fields };
type Fields = Readonly<Record<string, Field>>;

const text = (number: number): Field => ({ number, type: 'text' });
const integer = (number: number): Field => ({ number, type: 'integer' });
const boolean = (number: number): Field => ({ number, type: 'boolean' });
const time = (number: number): Field => ({ number, type: 'time' });
const textMap = (number: number): Field => ({ number, type: 'textMap' });
const intOrString = (number: number): Field => ({ number, type: 'intOrString' });
const message = (number: number, fields: Fields): Field => ({ number, type: 'message', fields });

const objectMeta = message(1, {
  name: text(1),
  generateName: text(2),
  namespace: text(3),
  uid: text(5),
  resourceVersion: text(6),
  generation: integer(7),
  creationTimestamp: time(8),
  deletionTimestamp: time(9),
  labels: textMap(11),
  annotations: textMap(12),
});

export const messages: Readonly<Record<string, Fields>> = {
  Service: {
    metadata: objectMeta,
    spec: message(2, {
      ports: message(1, {
        name: text(1),
        protocol: text(2),
        port: integer(3),
        targetPort: intOrString(4),
        nodePort: integer(5),
        appProtocol: text(6),
      }),
      selector: textMap(2),
      clusterIP: text(3),
      type: text(4),
      externalIPs: text(5),
      sessionAffinity: text(7),
      loadBalancerIP: text(8),
      loadBalancerSourceRanges: text(9),
      externalName: text(10),
      externalTrafficPolicy: text(11),
      healthCheckNodePort: integer(12),
      publishNotReadyAddresses: boolean(13),
      sessionAffinityConfig: message(14, { clientIP: message(1, { timeoutSeconds: integer(1) }) }),
      ipFamilyPolicy: text(17),
      clusterIPs: text(18),
      ipFamilies: text(19),
      allocateLoadBalancerNodePorts: boolean(20),
      loadBalancerClass: text(21),
      internalTrafficPolicy: text(22),
      trafficDistribution: text(23),
    }),
    status: message(3, {
      loadBalancer: message(1, { ingress: message(1, { ip: text(1), hostname: text(2), ipMode: text(3) }) }),
    }),
  },
  EndpointSlice: {
    metadata: objectMeta,
    endpoints: message(2, {
      addresses: text(1),
      conditions: message(2, { ready: boolean(1), serving: boolean(2), terminating: boolean(3) }),
      hostname: text(3),
      nodeName: text(6),
      zone: text(7),
      hints: message(8, { forZones: message(1, { name: text(1) }), forNodes: message(2, { name: text(1) }) }),
    }),
    ports: message(3, { name: text(1), protocol: text(2), port: integer(3), appProtocol: text(4) }),
    addressType: text(4),
  },
  Node: {
    metadata: objectMeta,
    spec: message(2, {
      podCIDR: text(1),
      providerID: text(3),
      unschedulable: boolean(4),
      taints: message(5, { key: text(1), value: text(2), effect: text(3) }),
      podCIDRs: text(7),
    }),
    status: message(3, { addresses: message(5, { type: text(1), address: text(2) }) }),
  },
  ServiceCIDR: {
    metadata: objectMeta,
    spec: message(2, { cidrs: text(1) }),
  },
  Status: {
    metadata: message(1, { resourceVersion: text(2), continue: text(3) }),
    status: text(2),
    message: text(3),
    reason: text(4),
    details: message(5, {
      name: text(1),
      kind: text(3),
      causes: message(4, { reason: text(1), message: text(2) }),
      retryAfterSeconds: integer(5),
    }),
    code: integer(6),
  },
};

/** Bytes at the end of a buffer that grows. */
class Writer {
  private buffer = Buffer.allocUnsafe(1024);
  private length = 0;

  private reserve(more: number): void {
    if (this.length + more <= this.buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.length + more));
    this.buffer.copy(grown, 0, 0, this.length);
    this.buffer = grown;
  }

  varint(value: number): void {
    this.reserve(10);
    let rest = value;
    while (rest >= 0x80) {
      this.buffer[this.length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.length++] = rest;
  }

  bytes(field: number, value: Buffer): void {
    this.varint(field * 8 + 2);
    this.varint(value.length);
    this.reserve(value.length);
    this.length += value.copy(this.buffer, this.length);
  }

  text(field: number, value: string): void {
    this.varint(field * 8 + 2);
    const size = Buffer.byteLength(value);
    this.varint(size);
    this.reserve(size);
    this.length += this.buffer.write(value, this.length);
  }

  /** An int32 or int64. */
  integer(field: number, value: number): void {
    this.varint(field * 8);
    if (value < 0) {
      this.negative(value);
      return;
    }
    this.varint(value);
  }

  /** A nested message: its length is known only after `write`, and put in front of it then. */
  nested(field: number, write: () => void): void {
    this.varint(field * 8 + 2);
    const start = this.length;
    this.varint(0);
    write();
    const size = this.length - start - 1;
    const more = sizeOfVarint(size) - 1;
    if (more > 0) {
      this.reserve(more);
      this.buffer.copyWithin(start + 1 + more, start + 1, this.length);
    }
    const end = this.length + more;
    this.length = start;
    this.varint(size);
    this.length = end;
  }

  /** Ten bytes, whatever the width of the field: two's complement in 64 bits. */
  private negative(value: number): void {
    this.reserve(10);
    for (let rest = BigInt.asUintN(64, BigInt(value)), i = 0; i < 10; i++, rest >>= 7n) {
      this.buffer[this.length++] = Number(rest & 0x7fn) | (i < 9 ? 0x80 : 0);
    }
  }

  clear(): void {
    this.length = 0;
  }

  /** A copy of what was written. */
  done(): Buffer {
    return Buffer.from(this.buffer.subarray(0, this.length));
  }
}

function sizeOfVarint(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) size++;
  return size;
}

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function writeFields(writer: Writer, fields: readonly (readonly [string, Field])[], value: Json): void {
  for (const [name, field] of fields) {
    const content = value[name];
    if (content === undefined || content === null) continue;
    if (Array.isArray(content)) for (const item of content as unknown[]) writeField(writer, field, item);
    else writeField(writer, field, content);
  }
}

/** Object.entries() of a table, made once. */
const entries = new Map<Fields, readonly (readonly [string, Field])[]>();

function entriesOf(fields: Fields): readonly (readonly [string, Field])[] {
  let list = entries.get(fields);
  if (list === undefined) {
    list = Object.entries(fields);
    entries.set(fields, list);
  }
  return list;
}

function writeField(writer: Writer, field: Field, value: unknown): void {
  switch (field.type) {
    case 'text':
      writer.text(field.number, String(value));
      return;
    case 'integer':
      writer.integer(field.number, Number(value));
      return;
    case 'boolean':
      writer.integer(field.number, value === true ? 1 : 0);
      return;
    case 'time':
      writer.nested(field.number, () => {
        writer.integer(1, Math.floor(Date.parse(String(value)) / 1000));
        writer.integer(2, 0);
      });
      return;
    case 'textMap':
      if (!isObject(value)) return;
      for (const [key, content] of Object.entries(value)) {
        writer.nested(field.number, () => {
          writer.text(1, key);
          writer.text(2, String(content));
        });
      }
      return;
    case 'intOrString':
      writer.nested(field.number, () => {
        writer.integer(1, typeof value === 'number' ? 0 : 1);
        if (typeof value === 'number') writer.integer(2, value);
        else writer.text(3, String(value));
      });
      return;
    case 'message':
      if (!isObject(value)) return;
      writer.nested(field.number, () => {
        writeFields(writer, entriesOf(field.fields), value);
      });
  }
}

const shared = new Writer();

/** The raw object, without an envelope. */
export function encodeObject(kind: string, value: Json): Buffer {
  const fields = messages[kind];
  if (fields === undefined) throw new Error(`no protobuf table for ${kind}`);
  shared.clear();
  writeFields(shared, entriesOf(fields), value);
  return shared.done();
}

const magic = Buffer.from([0x6b, 0x38, 0x73, 0x00]);

/** Magic, TypeMeta and the header of the raw object; `size` bytes of it must follow. */
export function envelopeHead(apiVersion: string, kind: string, size: number): Buffer {
  const type = new Writer();
  type.text(1, apiVersion);
  type.text(2, kind);
  const writer = new Writer();
  writer.bytes(1, type.done());
  writer.varint(2 * 8 + 2);
  writer.varint(size);
  return Buffer.concat([magic, writer.done()]);
}

export function envelope(apiVersion: string, kind: string, raw: Buffer): Buffer {
  return Buffer.concat([envelopeHead(apiVersion, kind, raw.length), raw]);
}

/** metadata of a list, as field 1 of the list. */
export function listMetaField(resourceVersion: string, continueToken: string): Buffer {
  const meta = new Writer();
  meta.text(2, resourceVersion);
  meta.text(3, continueToken);
  const writer = new Writer();
  writer.bytes(1, meta.done());
  return writer.done();
}

/** Tag and length in front of an item of a list. */
export function itemHead(size: number): Buffer {
  const writer = new Writer();
  writer.varint(2 * 8 + 2);
  writer.varint(size);
  return writer.done();
}

/** A whole frame of a watch stream. */
export function watchFrame(type: string, object: Buffer): Buffer {
  const raw = new Writer();
  raw.bytes(1, object);
  const event = new Writer();
  event.text(1, type);
  event.bytes(2, raw.done());
  const body = event.done();
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}
