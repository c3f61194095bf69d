// What a walk claims at its end: what the other side covers once it has all of it.

import { headerSize, newDraft, type Outgoing, sizeOf, vectorSize } from "./compose.ts";
import type { Link } from "./link.ts";
import type { CoreState } from "./state.ts";
import { covers, emptyVector, type SiteID, type Vector, wholeOf, withVersion } from "./vector.ts";
import type { Reading } from "./walk.ts";

/** Whether `v` has news for the other side that was not claimed yet. */
export function needsClaims(l: Link, v: Vector): boolean {
  for (const [site, version] of v) {
    if (site !== l.remote && !covers(l.known, site, version) && !covers(l.lastClaims, site, version)) {
      return true;
    }
  }
  return false;
}

/**
 * Puts claims and deps on the last message of a walk, making one where claims are all there is to say.
 *
 * Claims are the vector of the time at which the read was issued: what has been applied since may not be in the snapshot. Our
 * own entry is that of the snapshot, all of which is sent. So each row in the snapshot of an entry that the claims cover
 * was sent on this link before, is covered by the other side, or is named in the deps.
 */
export function claim(c: CoreState, l: Link, parts: Outgoing[], reading: Reading, own: number): Outgoing[] {
  const claims = withVersion(reading.claims, c.cfg.site, own);
  if (!l.owed && !needsClaims(l, claimsIfDue(l, claims, c.now))) {
    l.served = true;
    return parts;
  }
  const deps = depsOf(l);
  const news = new Map<SiteID, number>();
  for (const [site, version] of claims) {
    if (!covers(l.lastClaims, site, version) && !covers(l.known, site, version)) news.set(site, version);
  }
  const size = vectorSize(news) + vectorSize(deps);
  let last = parts.at(-1);
  if (!last || last.size + size > l.maxMessage - headerSize) {
    last = { m: newDraft(0, 0), size: 0, changes: 0 };
    parts.push(last);
  }
  last.m.claims = news;
  last.m.deps = deps;
  last.m.reached = reachedOf(l, wholeOf(l.cursor));
  last.m.remaining = 0;
  last.size = sizeOf(last.m);
  l.lastClaims = claims;
  l.claimsGen = reading.gen;
  l.claimsAt = 0;
  l.owed = false;
  l.served = true;
  return parts;
}

// What has to be news to the other side for claims without entries: anything in claims on the first walk, then what
// it should have got from elsewhere by now.
function claimsIfDue(l: Link, claims: Vector, now: number): Vector {
  if (!l.served) return claims;
  return l.claimsAt !== 0 && now >= l.claimsAt ? l.claimsMark : emptyVector;
}

// For each origin of a held entry its highest version.
function depsOf(l: Link): Vector {
  const deps = new Map<SiteID, number>();
  for (const h of l.held) deps.set(h.origin, Math.max(deps.get(h.origin) ?? 0, h.version));
  return deps;
}

/** The last local version at or below `walked` with nothing held at or below it. */
export function reachedOf(l: Link, walked: number): number {
  const first = l.held[0];
  return Math.max(Math.min(walked, wholeOf(l.cursor), first ? first.l - 1 : walked), 0);
}
