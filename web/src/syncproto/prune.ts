// In a large room an entry comes to a peer over several of its links. The first copy shows the better way; whoever sends
// another one is asked to hold that site's entries back (prune), and again to send them at once when one comes late and
// was needed after all (graft). So for each site the eager links settle into a tree. The held ones cost nothing but what
// have tells anyway, and are sent when a have does not cover them in time: the tree mends itself.

import { malformed } from "./errors.ts";
import type { Link } from "./link.ts";
import { type Changes, MaxPrunes, MaxVectorSites, type Prune, TypePrune } from "./message.ts";
import { type LinkID, PruneTicks } from "./ops.ts";
import { spanOf } from "./span.ts";
import type { CoreState } from "./state.ts";
import { covers, type SiteID } from "./vector.ts";

/** A link's part in that. */
export interface Pruning {
  /** Sites whose entries the other side asked us to hold; never modified, replaced. */
  pruned: ReadonlySet<SiteID>;
  /** Sites whose entries we asked the other side to hold. */
  readonly asked: Set<SiteID>;
  /** To be said. */
  readonly toPrune: SiteID[];
  readonly toGraft: SiteID[];
  /** Entries that came from the other side and that it is not known to cover. */
  readonly got: Map<SiteID, number>;
  /** Ticks: senders of one receiver wait differently, so that one of them is first. */
  readonly pruneDelay: number;
}

/** Depends on the two ends only. */
export function newPruning(self: SiteID, remote: SiteID): Pruning {
  let sum = 0;
  for (let i = 0; i < Math.min(self.length, remote.length); i += 2) {
    sum += byteAt(self, i) + 3 * byteAt(remote, i);
  }
  return {
    pruned: new Set(),
    asked: new Set(),
    toPrune: [],
    toGraft: [],
    got: new Map(),
    pruneDelay: PruneTicks + (sum % PruneTicks),
  };
}

function byteAt(site: SiteID, i: number): number {
  return Number.parseInt(site.slice(i, i + 2), 16);
}

/** Up to which version spans of a site came lately, and over which link. */
export interface Seen {
  readonly version: number;
  readonly link: LinkID;
}

/**
 * Looks at what a message brings: copies of what came over another link are not wanted, what comes although it is pruned
 * is.
 */
export function judge(c: CoreState, l: Link, m: Changes): void {
  for (const { origin, version } of m.spans) {
    if (origin === c.cfg.site || origin === l.remote) continue;
    const before = c.seen.get(origin);
    if (covers(c.vector, origin, version) || (before && before.version >= version && before.link !== l.id)) {
      ask(l, origin);
      continue;
    }
    graft(l, origin);
    if (c.seen.size < MaxVectorSites || before) c.seen.set(origin, { version, link: l.id });
  }
  for (const g of m.groups) {
    const { origin, version } = g;
    if (l.asked.has(origin) && !spanOf(m, g) && !covers(c.vector, origin, version)) graft(l, origin);
    if (!covers(l.known, origin, version) && (l.got.has(origin) || l.got.size < MaxVectorSites)) {
      l.got.set(origin, Math.max(l.got.get(origin) ?? 0, version));
    }
  }
}

function ask(l: Link, site: SiteID): void {
  if (l.asked.has(site) || l.asked.size >= MaxVectorSites) return;
  l.asked.add(site);
  const at = l.toGraft.indexOf(site);
  if (at >= 0)
    l.toGraft.splice(at, 1); // that it is wanted was not said yet
  else l.toPrune.push(site);
}

function graft(l: Link, site: SiteID): void {
  if (!l.asked.delete(site)) return;
  const at = l.toPrune.indexOf(site);
  if (at >= 0)
    l.toPrune.splice(at, 1); // it was not said yet
  else l.toGraft.push(site);
}

/** Says what judge found. */
export function sendPrune(c: CoreState, l: Link): void {
  while (l.toPrune.length > 0 || l.toGraft.length > 0) {
    c.send(l, { type: TypePrune, prune: first(l.toPrune), graft: first(l.toGraft) });
  }
}

// Takes as many sites as a message holds off a list, in ascending order.
function first(list: SiteID[]): SiteID[] {
  return list.splice(0, MaxPrunes).sort();
}

export function stepPrune(c: CoreState, l: Link, m: Prune): void {
  const pruned = new Set(l.pruned);
  for (const site of m.graft) pruned.delete(site);
  for (const site of m.prune) pruned.add(site);
  if (pruned.size > MaxVectorSites) {
    c.fail(l, malformed(`more than ${MaxVectorSites} sites are pruned`));
    return;
  }
  l.pruned = pruned;
}
