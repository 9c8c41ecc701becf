/** What can go wrong at any moment with connections and watches that are open, and with the server itself. */
import type { ApiServer } from './server.js';

export type Strike =
  | { readonly kind: 'cut-watches' | 'end-watches' | 'cut-connections' | 'go-away' }
  /** New connections are refused for so long. */
  | { readonly kind: 'refuse'; readonly ms: number }
  /** New connections are closed as soon as they are there. */
  | { readonly kind: 'slam'; readonly ms: number }
  /** Old versions are forgotten; with `expire` open watches end with 410. */
  | { readonly kind: 'compact'; readonly expire: boolean }
  /** An ERROR event in all watches, which end then. */
  | { readonly kind: 'error-event'; readonly status: number }
  /** Bytes that are no event. */
  | { readonly kind: 'noise' }
  /** A frame that claims to be longer than memory; in JSON a line that has no end. */
  | { readonly kind: 'huge-frame' }
  /** The beginning of an event, and then the end of the connection. */
  | { readonly kind: 'half-event' }
  /** The last few things that were sent are sent again. */
  | { readonly kind: 'repeat' }
  | { readonly kind: 'event-of-other-kind' | 'event-of-unknown-type' | 'event-without-name' }
  | { readonly kind: 'deletion-of-unknown' | 'bookmark-without-version' }
  /** Events and bookmarks are held back for so long; what is opened meanwhile is held back, too. */
  | { readonly kind: 'hold-back'; readonly ms: number }
  /** A copy of the database is put away … */
  | { readonly kind: 'backup' }
  /** … and the database set back to it, the counter of versions included. */
  | { readonly kind: 'restore' }
  /** The server's certificate is renewed, and all connections are made anew. */
  | { readonly kind: 'new-certificate' };

export function strike(server: ApiServer, what: Strike): void {
  switch (what.kind) {
    case 'cut-watches':
      server.cutWatches();
      return;
    case 'end-watches':
      server.endWatches();
      return;
    case 'cut-connections':
      server.cutConnections();
      return;
    case 'go-away':
      server.goAway();
      return;
    case 'refuse':
      server.refuseFor(what.ms);
      return;
    case 'slam':
      server.slamFor(what.ms);
      return;
    case 'compact':
      server.compact(what.expire);
      return;
    case 'hold-back':
      server.stall(true);
      setTimeout(() => {
        server.stall(false);
      }, what.ms).unref();
      return;
    case 'backup':
      server.store.backup();
      return;
    case 'restore':
      server.restore();
      return;
    case 'new-certificate':
      server.renewCertificate();
      return;
    case 'error-event':
      for (const watch of server.watches) watch.fail(what.status);
      return;
    case 'noise':
      for (const watch of server.watches) watch.raw(Buffer.from('\xff\xff\xff\xffgarbage\n', 'latin1'));
      return;
    case 'huge-frame':
      for (const watch of server.watches) {
        // Four bytes of length, then too little; a line of JSON begins, and goes on.
        watch.raw(
          watch.request.encoding === 'json'
            ? Buffer.from('{"type":"ADDED",')
            : Buffer.from('7fffffff00', 'hex'),
        );
      }
      return;
    case 'half-event':
      for (const watch of server.watches) watch.half();
      return;
    case 'repeat':
      for (const watch of server.watches) watch.repeat();
      return;
    case 'event-of-other-kind':
    case 'event-of-unknown-type':
    case 'event-without-name':
    case 'deletion-of-unknown':
    case 'bookmark-without-version':
      for (const watch of server.watches) watch.odd(what.kind);
      return;
  }
}
