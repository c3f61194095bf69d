// Ways to get the protocol wrong: Go's pkg/mesh/meshtest.

import type { Change } from "../../changeset/change.ts";
import type { Changes } from "../message.ts";
import type { ApplyRequest } from "../ops.ts";
import { emptyVector } from "../vector.ts";
import type { Conn, Peer } from "./network.ts";
import { keyOf } from "./store.ts";

/** A way to get the protocol wrong, which a simulation has to notice. */
export type Variant =
  | "no deps"
  | "deps from the vector, not from the log"
  | "resume past held entries"
  | "claims as of sending, not of the read"
  | "claims in the middle of a walk"
  | "a renewal that writes nothing anew"
  | "spans that name nothing they depend on"
  | "spans passed on with what is left of their groups"
  | "a store that records its own version in place of the origin's"
  | "a stored vector that rows raise, not claims"
  | "claims that are stored before their rows"
  | "a crash that takes a commit back";

/** What makes a sender wrong in that way. */
export const mutations: Partial<Record<Variant, (c: Conn, p: Peer, m: Changes) => Changes>> = {
  "no deps": (_c, _p, m) => (m.claims ? { ...m, deps: emptyVector } : m),
  "deps from the vector, not from the log": (_c, _p, m) => {
    if (!m.claims || !m.deps) return m;
    const { claims, deps } = m;
    return { ...m, deps: new Map([...deps].filter(([site, version]) => (claims.get(site) ?? 0) >= version)) };
  },
  "resume past held entries": (c, p, m) => {
    return { ...m, reached: Math.max(m.reached, c.walked[c.ends[0] === p ? 0 : 1]) };
  },
  "claims as of sending, not of the read": (_c, p, m) => (m.claims ? { ...m, claims: p.core.vector() } : m),
  "claims in the middle of a walk": (_c, p, m) =>
    m.claims ? m : { ...m, claims: p.core.vector(), deps: emptyVector },
  "spans that name nothing they depend on": (_c, _p, m) => ({
    ...m,
    spans: m.spans.map((s) => ({ ...s, deps: emptyVector })),
  }),
  "spans passed on with what is left of their groups": (_c, p, m) => ({
    ...m,
    groups: m.groups.map((g) => ({ ...g, changes: whatIsLeft(p, g.changes) })),
  }),
};

/** What makes a store wrong in that way. */
export const applyMutations: Partial<Record<Variant, (p: Peer, r: ApplyRequest) => ApplyRequest>> = {
  "a store that records its own version in place of the origin's": (p, r) => {
    const { newest } = p.store; // as cr-sqlite's own clocks do
    return { ...r, groups: r.groups.map((g, i) => ({ ...g, version: newest + 1 + i })) };
  },
  "a stored vector that rows raise, not claims": (_p, r) => {
    const claims = new Map(r.claims);
    for (const g of r.groups) claims.set(g.origin, Math.max(claims.get(g.origin) ?? 0, g.version));
    return { ...r, claims };
  },
};

// Of changes those whose cells the peer still has; one at least.
function whatIsLeft(p: Peer, changes: readonly Change[]): readonly Change[] {
  const left = changes.filter((ch) => {
    const { key, cell } = keyOf(ch);
    const has = p.store.cellOf(key);
    return has.version === cell.version && has.value === cell.value;
  });
  return left.length > 0 ? left : changes.slice(0, 1);
}
