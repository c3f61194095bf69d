// Claims wait for what was held back, and with many writers these waits can form a ring: this link waits for an entry that
// comes over another one, whose claims wait for an entry that comes over this one. A span breaks the ring. It says of a few
// groups by themselves that they are all that a site wrote between two of its versions, and so needs nothing of what the
// sender holds. The writer makes it (ownSpan); others pass it on as long as they remember the groups as they came
// (Units), since what is left of an entry in their database may be less.

import { headerSize, type Outgoing, sizeOf, spanSize, vectorSize } from "./compose.ts";
import { type Applying, raise } from "./inbox.ts";
import type { Link } from "./link.ts";
import { type Changes, type Group, MaxSpanDeps, MaxSpans, type Span } from "./message.ts";
import {
  type ApplyResult,
  DecideSend,
  type Decision,
  type Entry,
  MaxUnitBytes,
  MaxUnits,
  type ReadResult,
} from "./ops.ts";
import type { CoreState } from "./state.ts";
import { covers, coversAll, emptyVector, maxOf, type SiteID, type Vector } from "./vector.ts";

/** A span whose groups were taken, and that waits for `after` or `deps`. It does not depend on its link. */
export interface WaitingSpan {
  readonly span: Span;
  /** For the event when the vector is full. */
  readonly link: Link;
}

/** A span with its groups, all of them, as they came. */
interface Unit {
  readonly span: Span;
  readonly groups: Group[];
  /** Local versions of the groups, ascending. */
  readonly ls: number[];
  readonly size: number;
}

/** Remembers what came in spans lately, by local version. */
export class Units {
  readonly #byL = new Map<number, Unit>();
  readonly #order: Unit[] = []; // oldest first
  #size = 0;

  add(u: Unit): void {
    if (u.size > MaxUnitBytes) return;
    while (this.#order.length > 0 && (this.#order.length >= MaxUnits || this.#size + u.size > MaxUnitBytes)) {
      const oldest = this.#order.shift() as Unit;
      this.#size -= oldest.size;
      for (const l of oldest.ls) this.#byL.delete(l);
    }
    for (const l of u.ls) this.#byL.set(l, u);
    this.#order.push(u);
    this.#size += u.size;
  }

  get(l: number): Unit | undefined {
    return this.#byL.get(l);
  }

  get count(): number {
    return this.#order.length;
  }
}

/** Notes which entries a walk comes to. `decide` fills it until readDone. */
export class Met {
  /** Highest own version that was skipped. */
  skipped = 0;
  /** Highest version of each other site. */
  readonly foreign = new Map<SiteID, number>();
  /** foreign would have more than MaxSpanDeps sites. */
  tooMuch = false;
  /** The walk before got to its end, and no own version can hide below the cursor. */
  readonly unbroken: boolean;

  constructor(unbroken: boolean) {
    this.unbroken = unbroken;
  }

  note(self: SiteID, origin: SiteID, version: number, d: Decision): void {
    if (origin === self) {
      if (d !== DecideSend) this.skipped = Math.max(this.skipped, version);
    } else if (this.foreign.size === MaxSpanDeps && !this.foreign.has(origin)) {
      this.tooMuch = true;
    } else {
      this.foreign.set(origin, Math.max(this.foreign.get(origin) ?? 0, version));
    }
  }
}

/** Notes the local versions of an Apply: whether a walk that ends behind them has missed an own version. */
export function noteForeign(c: CoreState, ls: readonly number[]): void {
  for (const l of ls) {
    if (l === 0) continue;
    if (l === c.foreignRun.to + 1) c.foreignRun.to = l;
    else c.foreignRun = { from: l, to: l };
  }
}

/**
 * Whether no own version lies above `own` up to the local version `walked`: a commit whose changes were all beaten by
 * others before anybody looked has no entry, and nobody knows of it.
 */
export function solid(c: CoreState, own: number, walked: number): boolean {
  return own === walked || (c.foreignRun.to === walked && c.foreignRun.from <= own + 1);
}

/**
 * The span of a walk's own entries, if it is sure that all own writes behind the walk before are among them, or beaten by
 * entries that the span names.
 */
export function ownSpan(c: CoreState, l: Link, r: ReadResult, m: Met): Span | undefined {
  const origin = c.cfg.site;
  const after = Math.max(l.ownWalked, m.skipped);
  if (!r.end || !m.unbroken || m.tooMuch || r.own <= after) return undefined;
  if (!r.entries.some((e) => e.origin === origin)) return undefined;
  return { origin, after, version: r.own, deps: m.foreign };
}

/** Puts the groups of units in place of the entries that are left of them; returns the spans of these as well. */
export function whole(
  c: CoreState,
  entries: readonly Entry[],
): { readonly entries: readonly Entry[]; readonly spans: Span[] } {
  const out: Entry[] = [];
  const spans: Span[] = [];
  const used = new Set<Unit>();
  for (const e of entries) {
    const u = e.held ? undefined : c.units.get(e.l);
    if (!u) {
      out.push(e);
      continue;
    }
    if (used.has(u)) continue;
    used.add(u);
    for (const { origin, version, changes } of u.groups) {
      out.push({ l: e.l, origin, version, changes, held: false });
    }
    spans.push(u.span);
  }
  return { entries: out, spans };
}

/**
 * Puts spans on the only message of a read, in order of their origins, as far as there is room. Whether they say all that
 * there is to say of its groups.
 */
export function attach(o: Outgoing, spans: readonly Span[], maxMessage: number): boolean {
  const { m } = o;
  const sorted = [...spans].sort((a, b) =>
    a.origin === b.origin ? a.after - b.after : a.origin < b.origin ? -1 : 1,
  );
  for (const s of sorted) {
    const last = m.spans.at(-1);
    if (last?.origin === s.origin) {
      // One span of a site in a message: the next one goes on where the last one ends, or is left out.
      const deps = maxOf(last.deps, s.deps);
      if (last.version === s.after && deps.size <= MaxSpanDeps) {
        m.spans[m.spans.length - 1] = { ...last, version: s.version, deps };
      }
      continue;
    }
    const size = spanSize + vectorSize(s.deps);
    if (m.spans.length < MaxSpans && o.size + size <= maxMessage - headerSize) {
      m.spans.push(s);
      o.size += size;
    }
  }
  o.size = sizeOf(m);
  return m.groups.every((g) => spanOf(m, g) !== undefined);
}

// A message has up to MaxSpans spans and MaxGroups groups: so the sorted list is searched, not gone through.
function findSpan(spans: readonly Span[], site: SiteID): Span | undefined {
  let low = 0;
  let high = spans.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((spans[middle]?.origin ?? "") < site) low = middle + 1;
    else high = middle;
  }
  const s = spans[low];
  return s?.origin === site ? s : undefined;
}

/** The span that a group of a message belongs to. */
export function spanOf(m: { readonly spans: readonly Span[] }, g: Group): Span | undefined {
  const s = findSpan(m.spans, g.origin);
  return s && g.version > s.after && g.version <= s.version ? s : undefined;
}

/** What spans say of the site that sent them: that it has its own writes. */
export function ownOf(remote: SiteID, spans: readonly Span[]): Vector {
  const s = findSpan(spans, remote);
  return s ? new Map([[remote, s.version]]) : emptyVector;
}

/** A unit whose groups, at these places, are being applied. */
export interface ApplyingUnit extends Unit {
  readonly at: number[];
}

/** Notes the spans of a message whose groups, the last of those of `a`, are about to be applied. */
export function takeSpans(c: CoreState, a: Applying, l: Link, m: Changes, size: number): void {
  const first = a.groups.length - m.groups.length;
  const at = new Map<Span, number[]>(m.spans.map((span) => [span, []]));
  m.groups.forEach((g, i) => {
    const span = spanOf(m, g);
    if (span) at.get(span)?.push(first + i);
  });
  for (const span of m.spans) {
    if (span.origin === c.cfg.site) continue;
    if (c.spans.length === MaxSpans) c.spans.shift(); // claims will say it again
    c.spans.push({ span, link: l });
    a.units.push({ span, groups: [], ls: [], size, at: at.get(span) ?? [] });
  }
}

/** Remembers the units of an Apply that had an effect: they have entries to pass on. */
export function keepUnits(c: CoreState, a: Applying, r: ApplyResult): void {
  for (const u of a.units) {
    for (const i of u.at) {
      const g = a.groups[i];
      const l = r.ls[i] ?? 0;
      if (g) u.groups.push(g);
      if (l !== 0) u.ls.push(l);
    }
    if (u.ls.length > 0) c.units.add(u);
  }
}

/** Takes the spans whose time has come, raises `pending` and the Apply's claims. Whether there was one. */
export function resolveSpans(c: CoreState, a: Applying, pending: Map<SiteID, number>): boolean {
  let moved = false;
  c.spans = c.spans.filter(({ span, link }) => {
    const { origin, after, version, deps } = span;
    if (covers(pending, origin, version)) return false;
    if (!covers(pending, origin, after) || !coversAll(pending, deps)) return true;
    raise(c, a, link, pending, new Map([[origin, version]]));
    moved = true;
    return false;
  });
  return moved;
}
