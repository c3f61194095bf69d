// What the core keeps for one open channel.

import { CodeSameSite, CodeStaleCopy, malformed, ProtocolError } from "./errors.ts";
import { feeds } from "./feed.ts";
import { announced, type Having, newHaving } from "./have.ts";
import { busy, newReceiving, type Receiving } from "./inbox.ts";
import { type Hello, MaxMessage, MaxNeighbours, MaxVectorSites, TypeHello } from "./message.ts";
import type { LinkID, OpenInfo } from "./ops.ts";
import { newPruning, type Pruning } from "./prune.ts";
import { newSchemaState, type SchemaState, sameHash } from "./schema.ts";
import type { CoreState } from "./state.ts";
import { EventLive, EventSameSite, EventSchemaDiffers, EventStaleCopy } from "./status.ts";
import { covers, coversAll, emptyVector, maxOf, type SiteID, type Vector } from "./vector.ts";
import { newQuestions, type Questions } from "./verify.ts";
import { newServing, type Serving, startWalk } from "./walk.ts";

/** What the core keeps for one open channel. */
export interface Link extends Serving, Receiving, Having, Pruning, SchemaState, Questions {
  readonly id: LinkID;
  readonly remote: SiteID;
  readonly proof: Uint8Array;
  /** Our stored reached of the other side's entries. */
  readonly resume: number;
  /** The other side's hello is through; ours was sent when the link opened. */
  live: boolean;
  /** The driver was asked to close it; everything else is dropped. */
  closing: boolean;

  // What the other side said of itself.

  /** It has the writer role. */
  writer: boolean;
  /** It takes entries from us that are neither ours nor its neighbours'. */
  feed: boolean;
  /** It is in the middle of somebody's walk. */
  busy: boolean;
  maxMessage: number;
  /** Ascending; never modified, replaced. */
  neighbours: readonly SiteID[];
  /** What its vector covers at least; never modified, replaced. */
  known: Vector;
}

export function newLink(self: SiteID, id: LinkID, o: OpenInfo): Link {
  return {
    id,
    remote: o.remote,
    proof: o.proof,
    resume: o.resume,
    live: false,
    closing: false,
    writer: false,
    feed: false,
    busy: false,
    maxMessage: 0,
    neighbours: [],
    known: emptyVector,
    ...newServing(),
    ...newReceiving(),
    ...newHaving(),
    ...newPruning(self, o.remote),
    ...newSchemaState(),
    ...newQuestions(),
  };
}

export function sendHello(c: CoreState, l: Link): void {
  const h: Hello = {
    type: TypeHello,
    site: c.cfg.site,
    writer: c.cfg.writer,
    feed: feeds(c, l),
    busy: busy(c),
    proof: c.cfg.writer ? l.proof : new Uint8Array(0),
    schemaHash: c.schemaHash,
    maxMessage: c.cfg.maxMessage,
    resume: l.resume,
    neighbours: c.neighbours,
    vector: c.vector,
  };
  announced(c, l, h.feed, h.busy);
  l.told = { hash: h.schemaHash, generation: 0 };
  c.send(l, h);
}

export function stepHello(c: CoreState, l: Link, h: Hello): void {
  if (l.live) {
    c.fail(l, malformed("a second hello"));
    return;
  }
  l.writer = h.writer;
  if (h.site === c.cfg.site) {
    c.event(l, { kind: EventSameSite, proved: l.writer });
    c.fail(
      l,
      new ProtocolError(
        CodeSameSite,
        "both ends have the same site id: one database is a copy of the other, or open twice",
      ),
    );
    return;
  }
  if (h.site !== l.remote) {
    c.fail(l, malformed("the hello names another site than the signaling did"));
    return;
  }
  if (!learn(c, l, h.vector)) return;
  l.live = true;
  l.feed = h.feed;
  l.busy = h.busy;
  l.maxMessage = Math.min(h.maxMessage, MaxMessage);
  l.neighbours = h.neighbours;
  l.remoteHash = h.schemaHash;
  l.caughtUp = !h.writer;
  startWalk(l, resumeOf(c, l.remote, h.resume), c.newest);
  c.event(l, { kind: EventLive });
  if (!sameHash(l.remoteHash, c.schemaHash)) c.event(l, { kind: EventSchemaDiffers });
  updateNeighbours(c);
}

/**
 * Where the walk for a site begins that says how far it has come. What it cannot have from here was told by a database that
 * held more, before it was put back, or by a twin: other entries have taken those numbers here. That is so unless it
 * acknowledged as much; its word for the rest may have got lost with a link, and costs reading.
 */
function resumeOf(c: CoreState, remote: SiteID, reached: number): number {
  const passed = c.passed.get(remote) ?? 0;
  return reached > Math.max(c.cfg.newest, passed) ? passed : reached;
}

/** Notes how far the other side has followed the link's walk, as far as it said so. */
export function pass(c: CoreState, l: Link): void {
  if (c.passed.size >= MaxVectorSites) c.passed.clear(); // their walks start anew, which costs reading
  if (l.ackedReached > (c.passed.get(l.remote) ?? 0)) c.passed.set(l.remote, l.ackedReached);
}

/** Takes over what the other side's vector covers. False if that ended the link. */
export function learn(c: CoreState, l: Link, v: Vector): boolean {
  if (stale(c, l, v.get(c.cfg.site) ?? 0)) return false;
  const known = maxOf(l.known, v);
  if (known.size > MaxVectorSites) {
    c.fail(l, malformed(`the vector has more than ${MaxVectorSites} sites`));
    return false;
  }
  if (!coversAll(l.known, known)) {
    l.known = known;
    l.held = l.held.filter((h) => !covers(known, h.origin, h.version));
    for (const [site, version] of l.got) if (covers(known, site, version)) l.got.delete(site);
  }
  return true;
}

/** Ends the link if the other side has seen a version of our site that we do not have, and tells whether it did. */
export function stale(c: CoreState, l: Link, version: number): boolean {
  if (version <= c.own) return false;
  c.event(l, { kind: EventStaleCopy, version, proved: l.writer });
  c.fail(
    l,
    new ProtocolError(
      CodeStaleCopy,
      "this database is older than what it has announced: it was restored from a copy",
    ),
  );
  return true;
}

export function updateNeighbours(c: CoreState): void {
  const sites: SiteID[] = [];
  for (const id of c.order) {
    const l = c.link(id);
    if (l.live && !l.closing) sites.push(l.remote);
  }
  sites.sort();
  sites.length = Math.min(sites.length, MaxNeighbours);
  if (sites.length !== c.neighbours.length || sites.some((site, i) => site !== c.neighbours[i])) {
    c.neighbours = sites;
    c.neighboursGen++;
  }
}
