// A link's receiving side: groups are applied at once, claims wait for their deps.

import { countChanges, sizeOf } from "./compose.ts";
import { CodeFlow, CodeParked, CodeReadOnly, ProtocolError, truncate } from "./errors.ts";
import { type Link, learn, stale } from "./link.ts";
import { type Changes, MaxSentence, MaxVectorSites } from "./message.ts";
import {
  ApplyChanges,
  type ApplyGroup,
  type ApplyResult,
  BusyTicks,
  MaxClaimsQueue,
  type Refusal,
  ReservedSites,
  WindowBytes,
  WindowMessages,
} from "./ops.ts";
import { judge } from "./prune.ts";
import {
  type ApplyingUnit,
  keepUnits,
  noteForeign,
  ownOf,
  resolveSpans,
  takeSpans,
  type WaitingSpan,
} from "./span.ts";
import type { CoreState } from "./state.ts";
import { EventParked, EventVectorFull } from "./status.ts";
import { coversAll, emptyVector, maxOf, type SiteID, sitesOf, type Vector } from "./vector.ts";

/**
 * The number of a link's messages waiting to be applied from which on we are busy: what they hold should not be sent to
 * us by others meanwhile.
 */
const busyQueue = WindowMessages / 4;

/** A changes message with its size. */
interface Incoming {
  readonly m: Changes;
  readonly size: number;
}

/** What we cover once we cover deps. */
interface Claim {
  readonly claims: Vector;
  readonly deps: Vector;
}

/** A link's receiving side. */
export interface Receiving {
  /** To be applied. */
  inbox: Incoming[];
  /** Of inbox, and of what is being applied. */
  queuedBytes: number;
  /** changes messages. */
  received: number;
  /** Of them, stored. */
  applied: number;
  /** Sum of their sizes. */
  appliedBytes: number;
  receivedChanges: number;
  /** As the last message said. */
  remaining: number;
  /** The last message carried no claims. */
  midWalk: boolean;
  /** Tick of the last changes message, or of the opening. */
  heard: number;
  /** Waiting for their deps, oldest first. */
  claims: Claim[];
  /** Our first catch-up from this link is complete, or cannot be had. */
  caughtUp: boolean;
  caughtUpSaid: boolean;
  /** That the vector has no place for what it claims. */
  fullSaid: boolean;
}

export function newReceiving(): Receiving {
  return {
    inbox: [],
    queuedBytes: 0,
    received: 0,
    applied: 0,
    appliedBytes: 0,
    receivedChanges: 0,
    remaining: 0,
    midWalk: false,
    heard: 0,
    claims: [],
    caughtUp: false,
    caughtUpSaid: false,
    fullSaid: false,
  };
}

/** The outstanding Apply. */
export interface Applying {
  id: number;
  readonly claims: Map<SiteID, number>;
  readonly links: AppliedLink[];
  readonly groups: ApplyGroup[];
  readonly units: ApplyingUnit[];
  /** CoreState.spans before it. */
  readonly spans: readonly WaitingSpan[];
}

/** What an Apply means to one link. */
interface AppliedLink {
  readonly link: Link;
  messages: number;
  bytes: number;
  /** Claims of it were taken. */
  taken: boolean;
  /** What of the link is taken back if the Apply is refused for another's sake: its messages in it, its queue before. */
  readonly inbox: Incoming[];
  readonly claims: readonly Claim[];
}

export function readOnly(): ProtocolError {
  return new ProtocolError(
    CodeReadOnly,
    "this peer has not proved that it may write: it needs the room's write link",
  );
}

/** The highest version of a site that the message names as held by the sender, or waited for; 0 if it names none. */
function newestOf(m: Changes, site: SiteID): number {
  let version = m.deps?.get(site) ?? 0;
  for (const g of m.groups) {
    if (g.origin === site) version = Math.max(version, g.version);
  }
  for (const s of m.spans) version = Math.max(version, s.deps.get(site) ?? 0);
  return version;
}

export function stepChanges(c: CoreState, l: Link, m: Changes): void {
  if (!l.writer) {
    c.fail(l, readOnly());
    return;
  }
  if (l.received - l.applied >= WindowMessages || l.queuedBytes >= 2 * WindowBytes) {
    c.fail(l, new ProtocolError(CodeFlow, "more changes were sent than the window allows"));
    return;
  }
  if (!learn(c, l, maxOf(m.claims ?? emptyVector, ownOf(l.remote, m.spans)))) return;
  if (stale(c, l, newestOf(m, c.cfg.site))) return;
  const size = sizeOf(m);
  l.received++;
  l.receivedChanges += countChanges(m);
  l.queuedBytes += size;
  l.remaining = m.remaining;
  l.midWalk = m.claims === undefined && m.spans.length === 0;
  l.heard = c.now;
  judge(c, l, m);
  l.inbox.push({ m, size });
}

/** Whether we are in the middle of somebody's walk. One that has been silent for long does not count. */
export function busy(c: CoreState): boolean {
  return c.order.some((id) => {
    const l = c.link(id);
    return l.inbox.length >= busyQueue || (l.midWalk && c.now - l.heard < BusyTicks);
  });
}

/** Combines queued messages into an Apply, with those claims that they complete. */
export function startApply(c: CoreState): void {
  if (c.applying || (c.resolved === c.gen && !c.order.some((id) => inTurn(c.link(id))))) return;
  const a: Applying = { id: 0, claims: new Map(), links: [], groups: [], units: [], spans: [...c.spans] };
  const resume = new Map<SiteID, number>();
  takeMessages(c, a, resume);
  resolve(c, a);
  if (a.groups.length === 0 && a.claims.size === 0) {
    finish(c, a); // nothing to store; what was reached can be told again
    return;
  }
  a.id = ++c.applies;
  c.applying = a;
  c.pending.apply = { id: a.id, groups: a.groups, claims: a.claims, resume };
}

// Takes whole messages from the links in turn until there is enough for an Apply.
function takeMessages(c: CoreState, a: Applying, resume: Map<SiteID, number>): void {
  let changes = 0;
  while (changes < ApplyChanges) {
    const l = nextInTurn(c);
    const incoming = l?.inbox.shift();
    if (!l || !incoming) return;
    const { m, size } = incoming;
    changes += countChanges(m);
    for (const g of m.groups) a.groups.push({ ...g, link: l.id });
    takeSpans(c, a, l, m, size);
    resume.set(l.remote, m.reached);
    const part = partOf(a, l);
    part.messages++;
    part.bytes += size;
    part.inbox.push(incoming);
    if (m.claims) {
      l.claims.push({ claims: m.claims, deps: m.deps ?? emptyVector });
      if (l.claims.length > MaxClaimsQueue) {
        const [oldest, next] = l.claims.splice(0, 2) as [Claim, Claim];
        l.claims.unshift({ claims: maxOf(next.claims, oldest.claims), deps: next.deps });
      }
    }
  }
}

// The link behind the last one, in order of ids and around, that has a message to apply.
function nextInTurn(c: CoreState): Link | undefined {
  let first: Link | undefined;
  for (const id of c.order) {
    const l = c.link(id);
    if (!inTurn(l)) continue;
    if (id > c.turn) {
      first = l;
      break;
    }
    first ??= l;
  }
  if (first) c.turn = first.id;
  return first;
}

// Whether a link has a message to apply.
function inTurn(l: Link): boolean {
  return l.inbox.length > 0 && !l.schemaWait;
}

function partOf(a: Applying, l: Link): AppliedLink {
  let part = a.links.find((p) => p.link === l);
  if (!part) {
    part = { link: l, messages: 0, bytes: 0, taken: false, inbox: [], claims: [...l.claims] };
    a.links.push(part);
  }
  return part;
}

// Takes the spans and the claims whose deps are covered, until no more are. Of a link's queue it takes the newest such
// claims, and with them those before, whose deps may never be covered: what was held then and is no dep now was sent
// since, or is covered.
function resolve(c: CoreState, a: Applying): void {
  c.resolved = c.gen;
  const pending = new Map(c.vector);
  for (let moved = true; moved; ) {
    moved = resolveSpans(c, a, pending);
    for (const id of c.order) {
      const l = c.link(id);
      const at = l.claims.findLastIndex((claim) => coversAll(pending, claim.deps));
      if (at < 0) continue;
      partOf(a, l).taken = true;
      for (const { claims } of l.claims.slice(0, at + 1)) raise(c, a, l, pending, claims);
      l.claims = l.claims.slice(at + 1);
      moved = true;
    }
  }
}

/** Raises `pending`, and the claims of the Apply, to `claims`, which came over `l`. */
export function raise(
  c: CoreState,
  a: Applying,
  l: Link,
  pending: Map<SiteID, number>,
  claims: Vector,
): void {
  let full = false;
  for (const site of sitesOf(claims)) {
    const version = claims.get(site) ?? 0;
    const known = pending.get(site) ?? 0;
    if (site === c.cfg.site || version <= known) continue;
    if (known === 0 && !hasPlace(c, pending.size, site)) {
      full = true;
      continue;
    }
    pending.set(site, version);
    a.claims.set(site, version);
  }
  if (full && !l.fullSaid) {
    l.fullSaid = true;
    c.event(l, { kind: EventVectorFull });
  }
}

// Whether a vector of `size` sites has a place for a new one. A single message may claim as many sites as a vector has,
// invented ones too; that must not keep those out that are linked here.
function hasPlace(c: CoreState, size: number, site: SiteID): boolean {
  return size < MaxVectorSites - ReservedSites || (size < MaxVectorSites && c.neighbours.includes(site));
}

/** Answers the ApplyRequest. */
export function applied(c: CoreState, r: ApplyResult): void {
  const a = c.applying;
  if (!a || a.id !== r.id) return;
  c.applying = undefined;
  if (r.refused) {
    c.advance(r.own, r.newest, emptyVector);
    refused(c, a, r.refused);
    return;
  }
  count(c, a, r);
  noteForeign(c, r.ls);
  keepUnits(c, a, r);
  c.advance(r.own, r.newest, a.claims);
  finish(c, a);
}

// Ends the link of the group that could not be applied. What the others had in the Apply is as it was before it.
function refused(c: CoreState, a: Applying, r: Refusal): void {
  const culprit = a.groups[r.group]?.link;
  c.resolved = -1;
  c.spans = [...a.spans];
  for (const { link: l, inbox, claims } of a.links) {
    if (l.closing || c.links.get(l.id) !== l) continue;
    if (l.id === culprit) {
      c.fail(l, new ProtocolError(CodeParked, truncate(r.reason, MaxSentence)));
      continue;
    }
    l.inbox = [...inbox, ...l.inbox];
    l.claims = [...claims];
  }
}

// Tells the links what was applied.
function finish(c: CoreState, a: Applying): void {
  for (const { link: l, messages, bytes, taken } of a.links) {
    if (l.closing || c.links.get(l.id) !== l) continue;
    l.applied += messages;
    l.appliedBytes += bytes;
    l.queuedBytes -= bytes;
    if (taken) l.caughtUp = true;
  }
}

// Keeps the figures of what was applied.
function count(c: CoreState, a: Applying, r: ApplyResult): void {
  const { counters } = c;
  for (const part of a.links) counters.messages += part.messages;
  a.groups.forEach((g, i) => {
    const n = g.changes.length;
    counters.groups++;
    counters.changes += n;
    counters.changed += r.changed[i] ?? 0;
    if (r.ls[i] === 0) counters.redundant += n;
    const parked = r.parked?.[i] ?? 0;
    if (parked === 0) return;
    counters.parked += parked;
    const l = c.open(g.link);
    if (l) c.event(l, { kind: EventParked, count: parked });
  });
}
