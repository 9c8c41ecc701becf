/** Requests for one collection of the API server: what is asked, and what the answer is read as. */
import type { ApiStatus, Codec } from '../decode/decoded.js';
import { KubeError } from '../errors.js';
import type { ApiClient, ApiResponse } from '../client/client.js';
import { StatusError } from './request-errors.js';
import { acceptHeader, type Resource } from '../resources.js';
import type { ServerState } from './server.js';
import { decodeStatus } from '../decode/status.js';
import type { StringTable } from '../../strings.js';
import type { Logger } from '../../../log/logger.js';

export interface CollectionOptions<T> {
  readonly resource: Resource<T>;
  readonly client: ApiClient;
  readonly server: ServerState;
  readonly strings: StringTable;
  readonly log: Logger;
  readonly gzip: boolean;
}

export interface CollectionRequest {
  readonly parameters: Readonly<Record<string, string>>;
  readonly verb: 'list' | 'watch';
  /** The body is given up when nothing arrives for so long. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
  readonly isHung: (sentAt: number) => KubeError | undefined;
  /** Much comes at once: let the server compress it. */
  readonly large: boolean;
  /** A page of a list that counts as one request with the pages before it. */
  readonly continues?: boolean;
}

export class Collection<T> {
  private readonly options: CollectionOptions<T>;

  constructor(options: CollectionOptions<T>) {
    this.options = options;
  }

  /** @throws KubeError; StatusError for an answer that is not 2xx */
  async get(request: CollectionRequest): Promise<ApiResponse> {
    const { resource, client, server, gzip, log } = this.options;
    const watch = request.verb === 'watch';
    let types = server.contentTypes;
    for (;;) {
      log.debug(4, 'API request', { kind: resource.kind, ...request.parameters });
      const response = await client.request({
        target: this.target(request.parameters),
        accept: acceptHeader(types, watch),
        gzip: gzip && request.large,
        stallMs: request.stallMs,
        signal: request.signal,
        isHung: request.isHung,
        pastRateLimit: request.continues ?? false,
        watch,
      });
      log.debug(4, 'The API server answers', { kind: resource.kind, status: response.status });
      if (response.status >= 200 && response.status < 300) return response;
      const body = await readSome(response);
      const refusesType = response.status === 406 || response.status === 415;
      if (refusesType && types.includes('protobuf') && types.includes('json')) {
        if (server.contentTypes.includes('protobuf')) {
          server.protobufRefused();
          log.info('The API server has no protobuf, using JSON', { status: response.status });
        }
        types = ['json'];
        continue;
      }
      const status = decodeStatus(body, response.contentType);
      throw this.statusError(
        response.status,
        { ...status, retryAfterSeconds: Math.max(status.retryAfterSeconds, response.retryAfterSeconds) },
        request.verb,
      );
    }
  }

  private target(parameters: Readonly<Record<string, string>>): string {
    const { path, labelSelector, fieldSelector } = this.options.resource;
    const query = new URLSearchParams();
    if (labelSelector !== '') query.set('labelSelector', labelSelector);
    if (fieldSelector !== '') query.set('fieldSelector', fieldSelector);
    for (const [key, value] of Object.entries(parameters)) query.set(key, value);
    return `${path}?${query.toString()}`;
  }

  /** By what the server says that it sent, not by what was asked for. */
  codecOf(response: ApiResponse): Codec<T> {
    const { resource, strings, client } = this.options;
    if (response.contentType.includes('protobuf')) return resource.codec('protobuf', strings);
    if (response.contentType.includes('json')) return resource.codec('json', strings);
    throw new KubeError(
      'KUBE_API_STATUS',
      `${client.server} answered with ${response.contentType === '' ? 'no content type' : response.contentType}, ` +
        'which is not what an API server sends: check the URL',
    );
  }

  statusError(httpStatus: number, body: ApiStatus, verb: 'list' | 'watch'): StatusError {
    const status = body.code === 0 ? { ...body, code: httpStatus } : body;
    const { client, resource } = this.options;
    const { rbacName } = resource;
    const said = status.message === '' ? status.reason : status.message;
    switch (status.code) {
      case 401:
        return new StatusError(
          status,
          verb,
          `API server ${client.server} does not accept our credentials from ${client.credentials.source} ` +
            `(${said}): renew the token or client certificate`,
        );
      case 403:
        return new StatusError(
          status,
          verb,
          `API server ${client.server} does not let us ${verb} ${rbacName} (${said}): grant list and watch on it, ` +
            'as ClusterRole system:node-proxier does',
        );
      default:
        return new StatusError(
          status,
          verb,
          `API server ${client.server} answered ${status.code} when asked to ${verb} ${rbacName}: ${said}`,
        );
    }
  }
}

/** Enough of an error body for its Status; whatever breaks on the way is less important than the HTTP status. */
async function readSome(response: ApiResponse): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response.body) {
      parts.push(chunk);
      size += chunk.length;
      if (size > 64 * 1024) break;
    }
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
  }
  return Buffer.concat(parts);
}
