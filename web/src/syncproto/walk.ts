// A link's sending side: a walk through our entries.

import { claim, needsClaims, reachedOf } from "./claims.ts";
import { compose, countChanges, messageOf, type Outgoing } from "./compose.ts";
import type { Link } from "./link.ts";
import { SoftBytes, SoftChanges } from "./message.ts";
import {
  ClaimTicks,
  DecideHold,
  DecideSend,
  DecideSkip,
  DecideStop,
  type Decision,
  HoldTicks,
  MaxDecisions,
  MaxHeld,
  type ReadRequest,
  type ReadResult,
  WindowBytes,
  WindowMessages,
} from "./ops.ts";
import { attach, Met, ownSpan, solid, whole } from "./span.ts";
import type { CoreState } from "./state.ts";
import { covers, EntryEnd, emptyVector, type Position, type SiteID, type Vector, wholeOf } from "./vector.ts";

/** How many held entries one Read releases at most. */
const maxRelease = 1024;

/** An entry that was held back. */
interface Held {
  readonly l: number;
  readonly origin: SiteID;
  readonly version: number;
  /** Tick. */
  readonly since: number;
}

/** An outstanding Read. */
export interface Reading {
  readonly id: number;
  readonly only: boolean;
  /** The core's vector when the read was issued: what the snapshot holds at least. */
  readonly claims: Vector;
  readonly gen: number;
  readonly newest: number;
  /** If not only. */
  readonly met: Met;
}

/** A link's sending side. */
export interface Serving {
  /** All up to here was sent, skipped or held. */
  cursor: Position;
  /** The walk got to the end of its snapshot. */
  ended: boolean;
  /** newest when the read was issued that got there. */
  walked: number;
  /** The first walk got to its end. */
  served: boolean;
  /** About how many changes are left to walk; -1: not counted. */
  unsent: number;
  /** Ascending by l. */
  held: Held[];
  /** Outstanding. */
  reading: Reading | undefined;

  /** Held entries that are being released, ascending; undefined: none. */
  release: readonly number[] | undefined;
  /** How far. */
  released: Position;
  /** The last tick at which held entries were looked through for due ones. */
  dueTick: number;
  /** The last read released held entries. */
  lastOnly: boolean;

  /** Highest own version in the snapshot whose end the walk got to. */
  ownWalked: number;
  /** No own version can hide between that and the cursor. */
  unbroken: boolean;

  /** Composed, waiting for the window. */
  outbox: Outgoing[];
  sentMessages: number;
  ackedMessages: number;
  /** What is between the two. */
  inflight: Sent[];
  inflightBytes: number;
  /** The reached of what was acknowledged. */
  ackedReached: number;
  sentChanges: number;

  // Claims. The last ones sent, and when to look whether new ones without entries are needed.

  /** The next end of a walk sends claims, entries or not. */
  owed: boolean;
  lastClaims: Vector;
  /** gen when claims were last considered. */
  claimsGen: number;
  /** Tick; 0: none. */
  claimsAt: number;
  /** What has to be covered by then. */
  claimsMark: Vector;
}

/** A message that is not acknowledged yet. */
interface Sent {
  readonly size: number;
  readonly reached: number;
}

const start: Position = { l: 0, seq: 0n };

export function newServing(): Serving {
  return {
    cursor: start,
    ended: false,
    walked: 0,
    served: false,
    unsent: 0,
    held: [],
    reading: undefined,
    release: undefined,
    released: start,
    dueTick: 0,
    lastOnly: false,
    ownWalked: 0,
    unbroken: false,
    outbox: [],
    sentMessages: 0,
    ackedMessages: 0,
    inflight: [],
    inflightBytes: 0,
    ackedReached: 0,
    sentChanges: 0,
    owed: false,
    lastClaims: emptyVector,
    claimsGen: 0,
    claimsAt: 0,
    claimsMark: emptyVector,
  };
}

/** Begins a link's walk behind what the other side has stored as reached. */
export function startWalk(s: Serving, resume: number, newest: number): void {
  s.unsent = -1;
  s.dueTick = -1;
  if (resume <= newest) s.cursor = { l: resume, seq: EntryEnd };
}

/** Sends what the window allows, and asks for the next entries. */
export function serve(c: CoreState, l: Link): void {
  if (!c.cfg.writer) return;
  for (let next = l.outbox[0]; next && windowOpen(l); next = l.outbox[0]) {
    transmit(c, l, next);
    l.outbox.shift();
  }
  if (l.reading || l.outbox.length > 0 || !windowOpen(l)) return;
  const release = wantsRelease(c, l);
  const walk = wantsWalk(c, l);
  if (release && !(walk && l.lastOnly))
    readHeld(c, l); // in turn, where both are wanted
  else if (walk) readOn(c, l);
}

function windowOpen(l: Link): boolean {
  return l.inflight.length < WindowMessages && l.inflightBytes < WindowBytes;
}

function transmit(c: CoreState, l: Link, o: Outgoing): void {
  l.sentMessages++;
  l.inflight.push({ size: o.size, reached: o.m.reached });
  l.inflightBytes += o.size;
  l.sentChanges += countChanges(o.m);
  c.send(l, messageOf(o.m));
}

/** Takes the other side's count of applied messages. False if the count is impossible. */
export function acknowledge(l: Link, applied: number): boolean {
  if (applied < l.ackedMessages || applied > l.sentMessages) return false;
  for (const { size, reached } of l.inflight.splice(0, applied - l.ackedMessages)) {
    l.inflightBytes -= size;
    l.ackedReached = Math.max(l.ackedReached, reached);
  }
  l.ackedMessages = applied;
  return true;
}

// Whether the walk has to go on: to entries, or to its end for the sake of claims.
function wantsWalk(c: CoreState, l: Link): boolean {
  if (l.held.length >= MaxHeld) return false;
  if (!l.ended || c.newest > l.walked || l.owed) return true;
  if (l.claimsAt === 0 && c.gen !== l.claimsGen) {
    l.claimsGen = c.gen;
    l.claimsAt = c.now + ClaimTicks;
    l.claimsMark = c.vector;
  }
  if (l.claimsAt === 0 || c.now < l.claimsAt) return false;
  if (!needsClaims(l, l.claimsMark)) {
    l.claimsAt = 0;
    return false;
  }
  return true;
}

// Asks for the entries behind the cursor.
function readOn(c: CoreState, l: Link): void {
  const count = !l.ended && l.unsent < 0;
  const met = new Met(l.ended && l.unbroken);
  read(c, l, met, { after: l.cursor, only: undefined, count, decide: decideWalk(c.cfg.site, l, met) });
}

// met is undefined for a read of held entries.
function read(
  c: CoreState,
  l: Link,
  met: Met | undefined,
  what: Pick<ReadRequest, "after" | "only" | "count" | "decide">,
): void {
  c.reads++;
  const only = met === undefined;
  l.reading = {
    id: c.reads,
    only,
    claims: c.vector,
    gen: c.gen,
    newest: c.newest,
    met: met ?? new Met(false),
  };
  l.lastOnly = only;
  const limits = { maxBytes: SoftBytes, maxChanges: SoftChanges };
  c.pending.reads.push({ id: c.reads, link: l.id, ...limits, ...what });
}

// The decision for each entry of a walk. It is used later than the core's state, and so keeps what it needs.
function decideWalk(self: SiteID, l: Link, met: Met): (origin: SiteID, version: number) => Decision {
  const { known, feed, remote, pruned } = l;
  const got = new Map(l.got);
  const neighbours = new Set(l.neighbours);
  let room = MaxHeld - l.held.length;
  let decisions = 0;
  const decide = (origin: SiteID, version: number): Decision => {
    if (++decisions > MaxDecisions) return DecideStop;
    if (covers(known, origin, version)) return DecideSkip;
    if (origin === self) return DecideSend;
    const here = pruned.has(origin) || version <= (got.get(origin) ?? 0);
    if (feed && !here && origin !== remote && !neighbours.has(origin)) return DecideSend;
    if (room === 0) return DecideStop;
    room--;
    return DecideHold;
  };
  return (origin, version) => {
    const d = decide(origin, version);
    met.note(self, origin, version, d);
    return d;
  };
}

// Whether held entries are to be sent after all.
function wantsRelease(c: CoreState, l: Link): boolean {
  if (l.release === undefined && l.dueTick !== c.now && l.held.length > 0) {
    l.dueTick = c.now;
    const neighbours = new Set(l.neighbours);
    const release: number[] = [];
    for (const h of l.held) {
      if (due(c, l, h, neighbours)) release.push(h.l);
      if (release.length === maxRelease) break;
    }
    if (release.length > 0) l.release = release;
    l.released = start;
  }
  return l.release !== undefined;
}

// Whether a held entry has waited for long enough. What a neighbour of the other side (or that itself) made should have
// come from there, what it pruned comes over another link, and what it gave us it has. All else waits until the other side
// takes it from us.
function due(c: CoreState, l: Link, h: Held, neighbours: ReadonlySet<SiteID>): boolean {
  const wait = c.now - h.since;
  if (h.origin === l.remote || neighbours.has(h.origin) || covers(l.got, h.origin, h.version)) {
    return wait >= HoldTicks && !l.busy;
  }
  if (l.pruned.has(h.origin)) return wait >= l.pruneDelay && !l.busy;
  return l.feed;
}

// Asks for the entries that are being released.
function readHeld(c: CoreState, l: Link): void {
  const { known } = l;
  const decide = (origin: SiteID, version: number) =>
    covers(known, origin, version) ? DecideSkip : DecideSend;
  read(c, l, undefined, { after: l.released, only: l.release, count: false, decide });
}

/** Answers a ReadRequest. */
export function readDone(c: CoreState, r: ReadResult): void {
  // Before anything of the snapshot goes out: nobody may know of an own version that we do not know of.
  c.advance(r.own, r.newest, emptyVector);
  const l = c.open(r.link);
  const reading = l?.reading;
  if (!l || !reading || reading.id !== r.id) return;
  l.reading = undefined;
  if (reading.only) releaseDone(c, l, r);
  else walkDone(c, l, r, reading);
}

// Sends released entries. They carry no claims: those of before have deps that name the entries, and the walk that
// follows makes new ones.
function releaseDone(c: CoreState, l: Link, r: ReadResult): void {
  const { entries, spans } = whole(c, r.entries);
  const { parts, complete } = compose(c, l, entries, 0);
  const [only] = parts;
  if (only && parts.length === 1 && complete) attach(only, spans, l.maxMessage);
  const next = wholeOf(r.next);
  const gone = (version: number) => r.end || version <= next;
  for (const part of parts) part.m.reached = reachedOf(l, Number.MAX_SAFE_INTEGER);
  const releasing = new Set(l.release);
  l.held = l.held.filter((h) => !(releasing.has(h.l) && gone(h.l)));
  l.release = l.release?.filter((version) => !gone(version));
  l.released = r.next;
  if (l.release?.length === 0) {
    l.release = undefined;
    l.dueTick = -1; // there may be more
  }
  const last = parts.at(-1);
  if (last) last.m.reached = reachedOf(l, Number.MAX_SAFE_INTEGER);
  l.owed = true; // deps have become fewer, also where nothing was left to send
  l.outbox.push(...parts);
}

// Sends the entries of a walk, holds others back, and claims at the end.
function walkDone(c: CoreState, l: Link, r: ReadResult, reading: Reading): void {
  for (const e of r.entries) {
    if (e.held && !covers(l.known, e.origin, e.version)) {
      l.held.push({ l: e.l, origin: e.origin, version: e.version, since: c.now });
    }
  }
  countUnsent(l, r);
  l.cursor = r.next;
  l.ended = r.end;
  const { entries, spans } = whole(c, r.entries);
  const own = ownSpan(c, l, r, reading.met);
  if (own) spans.push(own);
  const composed = compose(c, l, entries, Math.max(l.unsent, 1));
  let { parts } = composed;
  const last = parts.at(-1);
  if (last) {
    last.m.reached = reachedOf(l, wholeOf(l.cursor));
    if (r.end) last.m.remaining = 0;
    // Spans of all groups say enough: what else there is to claim can wait for a have.
    const enough = parts.length === 1 && composed.complete && attach(last, spans, l.maxMessage);
    if (!enough || !r.end || !l.served) l.owed = true;
  }
  if (r.end) {
    l.walked = Math.max(reading.newest, r.newest);
    l.unsent = -1;
    l.ownWalked = r.own;
    l.unbroken = solid(c, r.own, wholeOf(l.cursor));
    parts = claim(c, l, parts, reading, r.own);
  }
  l.outbox.push(...parts);
}

// Keeps the count of what the walk has left. It is a guess: skipped and held entries are not taken off.
function countUnsent(l: Link, r: ReadResult): void {
  if (r.remaining > 0) l.unsent = r.remaining;
  if (l.unsent >= 0) {
    for (const e of r.entries) l.unsent -= e.changes.length;
    l.unsent = Math.max(l.unsent, 0);
  }
}
