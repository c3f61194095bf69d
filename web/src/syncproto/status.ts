// What the core tells about itself.

import { compareBytes } from "../changeset/value.ts";
import type { ProtocolError } from "./errors.ts";
import type { Link } from "./link.ts";
import type { LinkID } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { coversAll, type SiteID, since, type Vector, without } from "./vector.ts";

// What happened.

/** Both hellos are through. */
export const EventLive = 1;
/** The first walk of the other side is complete, and taken. */
export const EventCaughtUp = 2;
/** Our first walk for the other side is complete, and reported as applied. */
export const EventServed = 3;
/** The schema hashes differ. */
export const EventSchemaDiffers = 4;
/** A change is larger than the other side accepts and was left out: table, cid, size. */
export const EventTooLarge = 5;
/** The other side has seen `version` of our site, which we do not have: proved. */
export const EventStaleCopy = 6;
/** A claim for a new site was dropped: the vector has MaxVectorSites. */
export const EventVectorFull = 7;
/** `count` changes could not be applied and were put aside. */
export const EventParked = 8;
/** The other side reported `error`. */
export const EventRemoteError = 9;
/** The other side has our site id: proved. */
export const EventSameSite = 10;

/** Something worth a log line. Fields beyond kind, link and remote are set where the kind says so. */
export interface Event {
  readonly kind: number;
  readonly link: LinkID;
  readonly remote: SiteID;
  readonly version?: number;
  readonly count?: number;
  readonly size?: number;
  readonly table?: string;
  readonly cid?: string;
  readonly error?: ProtocolError;
  /** The other side has proved the writer role: not everybody can say this. */
  readonly proved?: boolean;
}

/** A picture of the core. */
export interface Status {
  readonly site: SiteID;
  readonly writer: boolean;
  /** Highest own version. */
  readonly own: number;
  /** Highest local version. */
  readonly newest: number;
  readonly vector: Vector;
  readonly synced: boolean;
  /** The link that we catch up from; 0: none. */
  readonly feeder: LinkID;
  /** By ascending id. */
  readonly links: readonly LinkStatus[];
  /** Since the core was made. */
  readonly applied: Counters;
}

/** What was applied. */
export interface Counters {
  /** changes messages. */
  messages: number;
  groups: number;
  /** Changes received. */
  changes: number;
  /** Rows changed by them. */
  changed: number;
  /** Changes of groups that had no effect. */
  redundant: number;
  /** Changes put aside. */
  parked: number;
  /** Changes that were not sent for their size. */
  tooLarge: number;
}

/** A picture of one link. */
export interface LinkStatus {
  readonly link: LinkID;
  readonly remote: SiteID;
  /** Both hellos are through. */
  readonly live: boolean;
  /** The other side proved the writer role. */
  readonly writer: boolean;
  /** The schema hashes are equal. */
  readonly schema: boolean;
  /** Between our tables and its, where it has told them: schemaDifferences. */
  readonly differences: readonly string[];
  /** Our first catch-up from it is not complete. */
  readonly catchingUp: boolean;
  /** Changes received from it. */
  readonly received: number;
  /** About how many more are to come in its walk. */
  readonly remaining: number;
  /** Its messages that wait to be applied. */
  readonly queued: number;
  /** Its claims that wait for their deps. */
  readonly waiting: number;
  /** We have entries for it that are not sent, or not reported as applied. */
  readonly serving: boolean;
  /** Changes sent to it. */
  readonly sent: number;
  /** About how many more our walk has. */
  readonly unsent: number;
  /** Entries held back from it. */
  readonly held: number;
  /** Messages not reported as applied. */
  readonly inFlight: number;
  /** Sites of which it covers less than we do. */
  readonly behind: number;
  /** Sites of which it covers more than we do. */
  readonly ahead: number;
}

/** A picture of the core. */
export function statusOf(c: CoreState): Status {
  const links = c.order.map((id) => c.link(id)).filter((l) => !l.closing);
  return {
    site: c.cfg.site,
    writer: c.cfg.writer,
    own: c.own,
    newest: c.newest,
    vector: c.vector,
    synced: synced(c),
    feeder: c.feeder,
    links: links.map((l) => linkStatus(c, l)),
    applied: { ...c.counters },
  };
}

function linkStatus(c: CoreState, l: Link): LinkStatus {
  return {
    link: l.id,
    remote: l.remote,
    live: l.live,
    writer: l.writer,
    schema: l.live && compareBytes(l.remoteHash, c.schemaHash) === 0,
    differences: l.differences,
    catchingUp: !l.caughtUp,
    received: l.receivedChanges,
    remaining: l.remaining,
    queued: l.inbox.length,
    waiting: l.claims.length,
    serving: isServing(c, l),
    sent: l.sentChanges,
    unsent: Math.max(l.unsent, 0),
    held: l.held.length,
    inFlight: l.inflight.length,
    behind: since(without(c.vector, l.remote), l.known).size,
    ahead: since(without(l.known, c.cfg.site), c.vector).size,
  };
}

// Whether there is something to send to the link's other side, or unreported.
function isServing(c: CoreState, l: Link): boolean {
  return (
    c.cfg.writer &&
    l.live &&
    (!l.ended ||
      c.newest > l.walked ||
      l.owed ||
      l.reading !== undefined ||
      l.held.length > 0 ||
      l.outbox.length > 0 ||
      l.inflight.length > 0)
  );
}

/** See `Core.synced`. */
export function synced(c: CoreState): boolean {
  if (c.applying) return false;
  return c.order.every((id) => {
    const l = c.link(id);
    if (l.closing) return true;
    if (!l.live || l.inbox.length > 0 || isServing(c, l)) return false;
    if (l.writer && !coversAll(c.vector, l.known)) return false;
    return !c.cfg.writer || coversAll(l.known, without(c.vector, l.remote));
  });
}
