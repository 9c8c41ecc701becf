/** A connection to generic netlink in this process's network namespace. */
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../attribute.js';
import { NetlinkConnection, type BatchedRequest, type Request } from '../connection.js';
import { NetlinkError } from '../errors.js';
import { NETLINK_GENERIC, NetlinkSocket, type Transport } from '../socket.js';
import {
  CTRL_CMD_GETFAMILY,
  CTRL_CMD_NEWFAMILY,
  CTRL_VERSION,
  decodeFamily,
  encodeFamilyName,
  GENL_HEADER,
  GENL_ID_CTRL,
  type GenericFamily,
  writeGenericHeader,
} from './family.js';

/** One message to a generic netlink family (linux/genetlink.h, struct genlmsghdr). */
export interface GenericRequest {
  readonly family: GenericFamily;
  readonly command: number;
  /** As a phrase: 'list virtual servers'. */
  readonly operation: string;
  /** Writes the attributes. */
  readonly encode?: (writer: AttributeWriter) => void;
  /** To name the attribute that the kernel objects to. */
  readonly names?: AttributeNames;
}

/** One of many, see NetlinkConnection.executeAll(). */
export interface BatchedGenericRequest extends Omit<GenericRequest, 'operation'> {
  readonly operation: BatchedRequest['operation'];
}

/** Gets the command of an answer and its attributes, which are good until it returns. */
export type OnReply = (command: number, attributes: AttributeDecoder) => void;

const controller: GenericFamily = { id: GENL_ID_CTRL, name: 'nlctrl', version: CTRL_VERSION };

/** A connection to all generic netlink families. */
export class GenericConnection {
  private readonly netlink: NetlinkConnection;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  static open(): GenericConnection {
    return new GenericConnection(NetlinkSocket.open(NETLINK_GENERIC));
  }

  close(): void {
    this.transport.close();
  }

  /** The families that the kernel has now. Unlike resolveFamily() this loads no module. */
  listFamilies(): GenericFamily[] {
    let families: GenericFamily[] = [];
    this.dump(
      { family: controller, command: CTRL_CMD_GETFAMILY, operation: 'list generic netlink families' },
      (command, attributes) => {
        if (command === CTRL_CMD_NEWFAMILY) families.push(decodeFamily(attributes));
      },
      () => {
        families = [];
      },
    );
    return families;
  }

  /** Finds a family by name; the kernel loads the module that provides it. undefined: there is none. */
  resolveFamily(name: string): GenericFamily | undefined {
    let family: GenericFamily | undefined;
    try {
      this.execute(
        {
          family: controller,
          command: CTRL_CMD_GETFAMILY,
          operation: `find generic netlink family "${name}"`,
          encode: (writer) => {
            encodeFamilyName(writer, name);
          },
        },
        (_command, attributes) => {
          family = decodeFamily(attributes);
        },
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined;
      throw error;
    }
    return family;
  }

  /** Sends one request and waits for its acknowledgement. @throws NetlinkError */
  execute(request: GenericRequest, onAnswer?: OnReply): void {
    this.netlink.execute(plain(request), (message) => {
      const attributes = message.attributes(GENL_HEADER);
      onAnswer?.(message.buffer[message.payload] ?? 0, attributes);
      attributes.finish();
    });
  }

  /** See NetlinkConnection.executeAll(). */
  executeAll(
    requests: Iterable<BatchedGenericRequest>,
    onFailure: (index: number, error: NetlinkError) => void,
  ): void {
    this.netlink.executeAll(mapped(requests), onFailure);
  }

  /** Dumps a whole table. @throws NetlinkError EINTR when it keeps changing, or changed and there is no `onRestart` */
  dump(request: GenericRequest, onAnswer: OnReply, onRestart?: () => void): void {
    this.netlink.dump(
      plain(request),
      (message) => {
        const attributes = message.attributes(GENL_HEADER);
        onAnswer(message.buffer[message.payload] ?? 0, attributes);
        attributes.finish();
      },
      onRestart,
    );
  }

  /** See NetlinkConnection.dumpAsync(). */
  async dumpAsync(
    request: GenericRequest,
    onAnswer: OnReply,
    options: { readonly onRestart?: () => void; readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    await this.netlink.dumpAsync(
      plain(request),
      (message) => {
        const attributes = message.attributes(GENL_HEADER);
        onAnswer(message.buffer[message.payload] ?? 0, attributes);
        attributes.finish();
      },
      options,
    );
  }
}

function* mapped(requests: Iterable<BatchedGenericRequest>): Generator<BatchedRequest> {
  for (const request of requests) yield framed(request, request.operation);
}

function plain(request: GenericRequest): Request {
  return framed(request, request.operation);
}

/** There are hundred thousands of them: no copies of objects. */
function framed<Operation>(
  { family, command, encode, names }: Omit<GenericRequest, 'operation'>,
  operation: Operation,
): Omit<Request, 'operation'> & { readonly operation: Operation } {
  const framedEncode = (writer: AttributeWriter): void => {
    writeGenericHeader(writer, command, family.version);
    encode?.(writer);
  };
  return names === undefined
    ? { type: family.id, operation, encode: framedEncode }
    : {
        type: family.id,
        operation,
        encode: framedEncode,
        names: { headerLength: GENL_HEADER, attributes: names },
      };
}
