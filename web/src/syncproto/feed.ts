// One link at a time is to catch us up: as long as we are behind, several peers would send the same. The first link feeds
// us until its first walk is complete; the others send what is their own, and the next one feeds us then.

import type { Link } from "./link.ts";
import { FeedTimeoutTicks } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { EventCaughtUp } from "./status.ts";
import { coversAll } from "./vector.ts";

/** Whether the other side of `l` may send us entries of sites that are not our neighbours. */
export function feeds(c: CoreState, l: Link): boolean {
  return l.caughtUp || l.id === c.feeder;
}

/** Looks whether the feeding link is done, and names the next one. */
export function updateFeed(c: CoreState): void {
  for (const id of c.order) {
    const l = c.link(id);
    if (l.live && !l.caughtUp && l.inbox.length === 0 && coversAll(c.vector, l.known)) {
      l.caughtUp = true;
    }
  }
  const feeder = c.links.get(c.feeder);
  if (feeder && !feeder.closing && !feeder.caughtUp && c.now - feeder.heard >= FeedTimeoutTicks) {
    feeder.caughtUp = true; // it may still send; but others may now, too
  }
  if (!feeder || feeder.closing || feeder.caughtUp) {
    const next = c.order.map((id) => c.link(id)).find((l) => !l.closing && !l.caughtUp);
    c.feeder = next?.id ?? 0;
    if (next) next.heard = c.now;
  }
  for (const id of c.order) {
    const l = c.link(id);
    if (l.live && l.writer && l.caughtUp && !l.caughtUpSaid) {
      l.caughtUpSaid = true;
      c.event(l, { kind: EventCaughtUp });
    }
  }
}
