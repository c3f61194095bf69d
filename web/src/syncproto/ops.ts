// What goes into the core and comes out of it, besides messages.

import type { Change } from "../changeset/change.ts";
import type { DigestContent, DigestRequest, Resend } from "./digest.ts";
import type { ProtocolError } from "./errors.ts";
import type { Group, Message, TableSchema } from "./message.ts";
import type { Event } from "./status.ts";
import type { Position, SiteID, Vector } from "./vector.ts";

/** Names one open channel. The driver chooses it, and never uses a number again while its core lives. */
export type LinkID = number;

/** How often the driver calls tick, in milliseconds. */
export const TickMillis = 50;

// Times, in ticks of TickMillis.

/** How long an entry that should come from a better place is held back. */
export const HoldTicks = 6;
/** An entry of a pruned site is held for this long, and up to as long again, by the two sites. */
export const PruneTicks = 8;
/** How long claims without entries wait for a have that makes them unnecessary. */
export const ClaimTicks = 6;
/** A have waits 1 to HaveTicks ticks for more to say. */
export const HaveTicks = 5;
/** A walk that has been silent for so long no longer makes its receiver busy. */
export const BusyTicks = 60;
/** A link that is to feed us and is silent for so long loses the task. */
export const FeedTimeoutTicks = 200;

// Bounds of what is in flight or remembered.

/** Changes messages that were sent and not yet reported as applied. */
export const WindowMessages = 16;
/** Bytes of such messages, by estimate; one message may always be in flight. */
export const WindowBytes = 1024 * 1024;
/** Changes after which an Apply takes no further message. */
export const ApplyChanges = 4096;
/** Held entries of a link; a walk stops where there would be more. */
export const MaxHeld = 65536;
/** Entries that one Read may decide on. */
export const MaxDecisions = 16384;
/** Claims of a link that wait for their deps; the two oldest become one when there are more. */
export const MaxClaimsQueue = 64;
/** Spans that are remembered with their groups, to pass them on as they came. */
export const MaxUnits = 1024;
/** Bytes of them, by estimate. */
export const MaxUnitBytes = 1024 * 1024;
/** Open links. */
export const MaxLinks = 1024;
/** Places in the vector that only sites with a link to us take. */
export const ReservedSites = 1024;

/** What a core starts from. `site`, `own`, `newest` and `vector` are the store's state. */
export interface Config {
  /** 16 bytes. */
  readonly site: SiteID;
  /** This peer has the writer role: it serves its entries. A reader only receives. */
  readonly writer: boolean;
  /** Highest own version that has rows or was ever announced; 0 if there is none. */
  readonly own: number;
  /** Highest local version of any entry; 0 if there is none. */
  readonly newest: number;
  /** Foreign claims as stored. */
  readonly vector: Vector;
  /** 32 bytes; zero: no CRR. */
  readonly schemaHash: Uint8Array;
  /** Of the jitter, 64 bits. Same Config, same calls: same results. */
  readonly seed: bigint;
  /** Largest message accepted, in bytes, MinMaxMessage to MaxMessage; 0 is MaxMessage. */
  readonly maxMessage: number;
}

/** What the driver knows of a channel that has just opened. */
export interface OpenInfo {
  /** The site that the other side named during signaling. */
  readonly remote: SiteID;
  /** Our role proof for this connection, ProofLen bytes; none for a reader. */
  readonly proof: Uint8Array;
  /** The reached that the store holds for `remote`, or 0. */
  readonly resume: number;
}

/** What the driver has to do. */
export interface Ready {
  /** In this order, at least per link. */
  readonly sends: readonly Send[];
  /** At most one is outstanding for each link. */
  readonly reads: readonly ReadRequest[];
  /** At most one is outstanding; undefined: none to start. */
  readonly apply: ApplyRequest | undefined;
  /** At most one is outstanding for each link. */
  readonly schemas: readonly SchemaRequest[];
  /** At most one is outstanding; undefined: none to start. */
  readonly look: LookRequest | undefined;
  /** After the sends. */
  readonly closes: readonly Close[];
  /** For logs and figures. */
  readonly events: readonly Event[];
}

/** A message for the other side of a link. */
export interface Send {
  readonly link: LinkID;
  readonly message: Message;
}

/** Asks the driver to close a link once its sends are flushed, and to call `Core.close` then. */
export interface Close {
  readonly link: LinkID;
  /** Why; undefined after a bye. */
  readonly error: ProtocolError | undefined;
}

/**
 * Asks the driver to take of another's schema what its owner lets it take, and then to call `schemaChanged` if hash,
 * generation or tables changed, and `schemaApplied` in any case. Where the hash is our own, only the generation counts.
 */
export interface SchemaRequest {
  readonly link: LinkID;
  readonly hash: Uint8Array;
  readonly generation: number;
  readonly tables: readonly TableSchema[];
}

// What becomes of an entry that a Read comes to.

/** Go on behind it. */
export const DecideSkip = 0;
/** Return its header with `held` set, go on behind it. */
export const DecideHold = 1;
/** Return it with its changes. */
export const DecideSend = 2;
/** End the Read before it, with `end` false. */
export const DecideStop = 3;

export type Decision = typeof DecideSkip | typeof DecideHold | typeof DecideSend | typeof DecideStop;

/** Asks for entries, all from one snapshot. */
export interface ReadRequest {
  readonly id: number;
  readonly link: LinkID;
  /** Only what lies behind it. */
  readonly after: Position;
  /** undefined: all entries; else only these local versions, ascending. */
  readonly only: readonly number[] | undefined;
  /**
   * Soft limits: the Read stops before it exceeds them, but returns at least one run of changes with one (L, seq).
   * Such a run is never split.
   */
  readonly maxBytes: number;
  readonly maxChanges: number;
  /** Also count the changes behind `after`. */
  readonly count: boolean;
  /** Called for each entry in order, once, before its changes are read; for one that `after` lies within, too. */
  readonly decide: (origin: SiteID, version: number) => Decision;
}

/** What one local version holds, or a part of it. */
export interface Entry {
  readonly l: number;
  readonly origin: SiteID;
  readonly version: number;
  /** None if held. */
  readonly changes: readonly Change[];
  /** `decide` said DecideHold. */
  readonly held: boolean;
}

/** Answers a ReadRequest. */
export interface ReadResult {
  readonly id: number;
  readonly link: LinkID;
  /** Ascending; without those that were skipped. */
  readonly entries: readonly Entry[];
  /** All up to here was walked; `after` where there was nothing. Its `l` has, or had, an entry. */
  readonly next: Position;
  /** Nothing lies behind `next` in the snapshot (nothing of `only`, where that was given). */
  readonly end: boolean;
  /** Of the snapshot; durable. */
  readonly own: number;
  readonly newest: number;
  /** If `count`: the changes behind `after`, those returned included; else 0. */
  readonly remaining: number;
}

/** Asks what the store holds, for the other side of a link. One of `digest` and `resend` is set. */
export interface LookRequest {
  readonly id: number;
  readonly link: LinkID;
  /** To be answered from one snapshot. */
  readonly digest: DigestRequest | undefined;
  /** All changes of these rows, as entries in ascending order. */
  readonly resend: Resend | undefined;
}

/** Answers a LookRequest. */
export interface LookResult {
  readonly id: number;
  readonly answer: DigestContent | undefined;
  readonly entries: readonly Entry[];
  /** How long the look took. */
  readonly millis: number;
}

/** A Group and the link that it came from. */
export interface ApplyGroup extends Group {
  readonly link: LinkID;
}

/** Asks to merge `groups`, and to store `claims` and `resume` in the transaction that holds the last of them. */
export interface ApplyRequest {
  readonly id: number;
  /** Each under a local version of its own if it has an effect; may be empty. */
  readonly groups: readonly ApplyGroup[];
  /** Foreign entries of the vector to store; may be empty. */
  readonly claims: Vector;
  /** reached for a site, to store as it is. */
  readonly resume: ReadonlyMap<SiteID, number>;
}

/** Answers an ApplyRequest once it is durable. */
export interface ApplyResult {
  readonly id: number;
  /** For each group the local version that it got; 0: it had no effect. */
  readonly ls: readonly number[];
  /** For each group the number of rows that it changed. */
  readonly changed: readonly number[];
  /** For each group the number of changes that could not be applied and were put aside; undefined: none. */
  readonly parked: readonly number[] | undefined;
  /** Afterwards. */
  readonly own: number;
  readonly newest: number;
  /**
   * Nothing more may be put aside, and so no claim was stored; what was of the groups may be. The core ends the link that
   * the group came from, and asks again for the rest. undefined: all was applied.
   */
  readonly refused?: Refusal | undefined;
}

/** The group that an apply could not take. */
export interface Refusal {
  /** Its index. */
  readonly group: number;
  /** A sentence for its sender. */
  readonly reason: string;
}
