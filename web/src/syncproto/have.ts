// What a link's other side is told of what has arrived, and when.

import { malformed } from "./errors.ts";
import { feeds } from "./feed.ts";
import { type Link, learn } from "./link.ts";
import { type Have, TypeHave } from "./message.ts";
import { HaveTicks, WindowBytes, WindowMessages } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { EventServed } from "./status.ts";
import { emptyVector, since, type Vector } from "./vector.ts";
import { acknowledge } from "./walk.ts";

/** What a link's other side was told by hello and have, and when it is told more. */
export interface Having {
  toldVector: Vector;
  toldForeignGen: number;
  /** neighboursGen. */
  toldNeighbours: number;
  toldApplied: number;
  toldBytes: number;
  toldFeed: boolean;
  toldBusy: boolean;
  /** Tick; 0: nothing to tell. */
  haveAt: number;
  servedSaid: boolean;
}

export function newHaving(): Having {
  return {
    toldVector: emptyVector,
    toldForeignGen: 0,
    toldNeighbours: 0,
    toldApplied: 0,
    toldBytes: 0,
    toldFeed: false,
    toldBusy: false,
    haveAt: 0,
    servedSaid: false,
  };
}

/** Notes that the other side was told how things are. */
export function announced(c: CoreState, l: Link, feed: boolean, busy: boolean): void {
  l.toldVector = c.vector;
  l.toldForeignGen = c.foreignGen;
  l.toldNeighbours = c.neighboursGen;
  l.toldApplied = l.applied;
  l.toldBytes = l.appliedBytes;
  l.toldFeed = feed;
  l.toldBusy = busy;
  l.haveAt = 0;
}

/**
 * Sends a have once there is something to tell: at once where the other side waits for it, else after a while, so that
 * one have tells of several things.
 */
export function announce(c: CoreState, l: Link, busy: boolean): void {
  const feed = feeds(c, l);
  if (
    feed === l.toldFeed &&
    busy === l.toldBusy &&
    l.applied === l.toldApplied &&
    c.foreignGen === l.toldForeignGen &&
    c.neighboursGen === l.toldNeighbours
  ) {
    l.haveAt = 0;
    return;
  }
  if (l.haveAt === 0) l.haveAt = c.now + c.jitter(HaveTicks);
  const urgent =
    feed !== l.toldFeed ||
    l.applied - l.toldApplied >= WindowMessages / 4 ||
    l.appliedBytes - l.toldBytes >= WindowBytes / 4;
  if (c.now < l.haveAt && !urgent) return;
  const have: Have = {
    type: TypeHave,
    feed,
    busy,
    applied: l.applied,
    delta: since(c.vector, l.toldVector),
    neighbours: c.neighboursGen === l.toldNeighbours ? undefined : c.neighbours,
  };
  announced(c, l, feed, busy);
  c.send(l, have);
}

export function stepHave(c: CoreState, l: Link, h: Have): void {
  if (!acknowledge(l, h.applied)) {
    c.fail(l, malformed("a have counts messages that were not sent"));
    return;
  }
  if (!learn(c, l, h.delta)) return;
  l.feed = h.feed;
  l.busy = h.busy;
  if (h.neighbours) l.neighbours = h.neighbours;
  if (l.served && !l.servedSaid && l.outbox.length === 0 && l.inflight.length === 0) {
    l.servedSaid = true;
    c.event(l, { kind: EventServed });
  }
}
