// Vectors and positions.

import type { SiteID } from "../changeset/change.ts";

export type { SiteID } from "../changeset/change.ts";

/**
 * Says for each site up to which of its versions a peer covers every write. A missing site is version 0. Treated as
 * immutable once anybody else can see it, and replaced as a whole.
 */
export type Vector = ReadonlyMap<SiteID, number>;

/** The vector that covers nothing. */
export const emptyVector: Vector = new Map();

/** Whether `v` covers `version` of `site`. */
export function covers(v: Vector, site: SiteID, version: number): boolean {
  return (v.get(site) ?? 0) >= version;
}

/** Whether `v` covers all of `o`. */
export function coversAll(v: Vector, o: Vector): boolean {
  for (const [site, version] of o) {
    if (!covers(v, site, version)) return false;
  }
  return true;
}

/** The sites of `v` in ascending order. */
export function sitesOf(v: Vector): SiteID[] {
  return [...v.keys()].sort();
}

/** A vector like `v` in which `site` has `version`; `v` itself, where it has that version or a higher one. */
export function withVersion(v: Vector, site: SiteID, version: number): Vector {
  return covers(v, site, version) ? v : new Map(v).set(site, version);
}

/** A vector like `v` without `site`; `v` itself, where it does not have it. */
export function without(v: Vector, site: SiteID): Vector {
  if (!v.has(site)) return v;
  const out = new Map(v);
  out.delete(site);
  return out;
}

/** The entry-wise maximum of `v` and `o`, and `v` itself where that is `v`. */
export function maxOf(v: Vector, o: Vector): Vector {
  if (coversAll(v, o)) return v;
  const out = new Map(v);
  for (const [site, version] of o) out.set(site, Math.max(out.get(site) ?? 0, version));
  return out;
}

/** The entries of `v` that are above those of `o`; empty if there are none. */
export function since(v: Vector, o: Vector): Vector {
  const out = new Map<SiteID, number>();
  for (const [site, version] of v) {
    if (!covers(o, site, version)) out.set(site, version);
  }
  return out;
}

/**
 * A place in a peer's entries: everything with a lower local version than `l`, and of `l` itself every change with a
 * sequence number up to `seq`, is at or before it. `seq` is `EntryEnd` where all of `l` is.
 */
export interface Position {
  readonly l: number;
  readonly seq: bigint;
}

/** The `seq` of a Position at the end of an entry. */
export const EntryEnd = 2n ** 63n - 1n;

/** Orders positions: -1 if `a` is before `b`, 0 if they are equal, 1 if it is behind. */
export function comparePositions(a: Position, b: Position): -1 | 0 | 1 {
  if (a.l !== b.l) return a.l < b.l ? -1 : 1;
  return a.seq < b.seq ? -1 : a.seq > b.seq ? 1 : 0;
}

/** The last local version that lies before `p` as a whole. */
export function wholeOf(p: Position): number {
  return p.seq === EntryEnd ? p.l : Math.max(p.l - 1, 0);
}
