// The messages of docs/PROTOCOL.md and their limits.

import { type Change, MaxVersion as maxChangeVersion } from "../changeset/change.ts";
import type { TableSchema } from "../changeset/schema.ts";
import type { DigestAnswer, DigestRequest, Resend } from "./digest.ts";
import type { Need } from "./need.ts";
import type { Relay } from "./relay.ts";
import type { SiteID, Vector } from "./vector.ts";

/** The protocol version that a hello names. */
export const Protocol = 1;

// Hard limits. Parsing refuses what exceeds them before it takes memory for it.

/** Bytes of a message, whatever the receiver's hello says. */
export const MaxMessage = 64 * 1024 * 1024;
/** Bytes: a hello may not announce a smaller maximum than this. */
export const MinMaxMessage = 1024 * 1024;
/** Versions, local versions and counts: a number holds them exactly. */
export const MaxVersion = maxChangeVersion;
/** Sites of a vector. */
export const MaxVectorSites = 16384;
/** Sites listed as neighbours. */
export const MaxNeighbours = 1024;
/** Groups of a changes message. */
export const MaxGroups = 8192;
/** Changes (cells) of a changes message. */
export const MaxChanges = 65536;
/** Spans of a changes message. */
export const MaxSpans = 1024;
/** Sites in the deps of a span. */
export const MaxSpanDeps = 64;
/** Sites in each list of a prune message. */
export const MaxPrunes = 1024;
/** Bytes of a table or column name. */
export const MaxName = 1024;
/** Tables of a schema message. */
export const MaxSchemaTables = 1024;
/** Bytes of a CREATE TABLE statement. */
export const MaxSchemaSQL = 64 * 1024;
/** Bytes of a schema message. */
export const MaxSchemaBytes = 4 * 1024 * 1024;
/** Columns of a table in a schema message, as many as SQLite allows. */
export const MaxColumns = 2000;
/** Bytes of a column's declared type. */
export const MaxTypeName = 1024;
/** Generations of a schema. */
export const MaxGeneration = 2 ** 32 - 1;
/** Bytes of the sentence of an error or bye. */
export const MaxSentence = 1024;
/** Bytes of a role proof. */
export const ProofLen = 64;
/** Bytes of a schema hash. */
export const SchemaHashLen = 32;

// Soft limits: what a sender aims at.

/** Bytes of a changes message. */
export const SoftBytes = 64 * 1024;
/** Changes of a changes message. */
export const SoftChanges = 4096;

// Message types, the first byte of a message.
export const TypeHello = 1;
export const TypeChanges = 2;
export const TypeHave = 3;
export const TypeErrorMessage = 4;
export const TypeBye = 5;
export const TypeSchema = 6;
export const TypePrune = 7;
export const TypeRelay = 8;
export const TypeDigestRequest = 9;
export const TypeDigestAnswer = 10;
export const TypeResend = 11;
export const TypeNeed = 12;

/** The first message on a link, from each side. */
export interface Hello {
  readonly type: typeof TypeHello;
  readonly site: SiteID;
  /** The sender claims the writer role; parsing lets it stand only beside a proof. */
  readonly writer: boolean;
  /** The receiver of the hello may send entries of sites that are not the sender's neighbours. */
  readonly feed: boolean;
  /** The sender is in the middle of somebody's walk. */
  readonly busy: boolean;
  /** ProofLen bytes of a writer, none of a reader. */
  readonly proof: Uint8Array;
  /** 32 bytes; zero: no CRR. */
  readonly schemaHash: Uint8Array;
  /** Largest message the sender accepts, in bytes. */
  readonly maxMessage: number;
  /** The reached that the sender stored for the receiver's site, or 0. */
  readonly resume: number;
  /** Sites that the sender has links to, ascending. */
  readonly neighbours: readonly SiteID[];
  /** The sender's own entry included. */
  readonly vector: Vector;
}

/** The changes of one entry, or of a part of one. */
export interface Group {
  readonly origin: SiteID;
  readonly version: number;
  /** At least one; dbVersion is not carried and is 0. */
  readonly changes: readonly Change[];
}

/**
 * Says that the groups of `origin` in its message hold every write of `origin` above `after` up to `version`, or what beats
 * it, once the receiver covers `deps` as well.
 */
export interface Span {
  readonly origin: SiteID;
  readonly after: number;
  readonly version: number;
  /** What `origin` had from others by `version` and may have beaten its writes. */
  readonly deps: Vector;
}

/** Carries entries, and says what the receiver covers once it has them. */
export interface Changes {
  readonly type: typeof TypeChanges;
  /** The sender has no entry unsent at or below this local version of its own. */
  readonly reached: number;
  /** About how many more changes the walk has; 0 on its last message. */
  readonly remaining: number;
  readonly groups: readonly Group[];
  /**
   * What of the sender's vector the receiver was not told on this link and is not known to cover; undefined where the walk
   * goes on.
   */
  readonly claims: Vector | undefined;
  /**
   * What the receiver's vector has to cover before it takes the claims, and those before; undefined exactly if they
   * are.
   */
  readonly deps: Vector | undefined;
  /** For which sites `groups` are complete, in ascending order of the sites. */
  readonly spans: readonly Span[];
}

/**
 * Asks not to be sent, or to be sent again, the entries of some sites: the receiver holds those of a pruned site for a
 * while before it sends them.
 */
export interface Prune {
  readonly type: typeof TypePrune;
  /** Ascending, none in both. */
  readonly prune: readonly SiteID[];
  readonly graft: readonly SiteID[];
}

/** Tells a sender what has arrived. */
export interface Have {
  readonly type: typeof TypeHave;
  readonly feed: boolean;
  readonly busy: boolean;
  /** Changes messages of this link stored so far. */
  readonly applied: number;
  /** Entries of the vector that rose since the last hello or have. */
  readonly delta: Vector;
  /** Ascending; undefined where they have not changed. */
  readonly neighbours: readonly SiteID[] | undefined;
}

/** Says what was wrong. The sender closes the connection afterwards. */
export interface ErrorMessage {
  readonly type: typeof TypeErrorMessage;
  readonly code: number;
  readonly sentence: string;
}

/** Says that the sender leaves, and why. It closes the connection afterwards. */
export interface Bye {
  readonly type: typeof TypeBye;
  readonly sentence: string;
}

export type { TableSchema };

/** The sender's CRRs, or only that their hash is another now. */
export interface Schema {
  readonly type: typeof TypeSchema;
  /** 32 bytes. */
  readonly hash: Uint8Array;
  /** Counts the migrations that were made on purpose; 0: none, or the sender is a reader. */
  readonly generation: number;
  /** In ascending bytewise order of their names; none: the hash alone is told. */
  readonly tables: readonly TableSchema[];
}

/** Any message. */
export type Message =
  | Hello
  | Changes
  | Have
  | ErrorMessage
  | Bye
  | Schema
  | Prune
  | Relay
  | DigestRequest
  | DigestAnswer
  | Resend
  | Need;
