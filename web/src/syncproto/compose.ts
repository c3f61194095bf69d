// Messages out of entries, and their sizes.

import { type Change, SiteIDLen } from "../changeset/change.ts";
import { valueSize } from "../changeset/value.ts";
import { reachedOf } from "./claims.ts";
import type { Link } from "./link.ts";
import { type Changes, type Group, MaxName, SoftChanges, type Span, TypeChanges } from "./message.ts";
import { type Entry, WindowBytes } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { EventTooLarge } from "./status.ts";
import type { Vector } from "./vector.ts";
import { utf8Length } from "./wire.ts";

// Sizes that are added to what a message surely takes.

/** Of a changes message without groups, claims and deps. */
export const headerSize = 64;
const groupSize = 48; // of a group without changes
/** Of a span without its deps. */
export const spanSize = 40;
const cellSize = 80; // of a change without its names, key and value: site, versions, lengths

/** A changes message that is being made. */
export interface Draft {
  reached: number;
  remaining: number;
  readonly groups: { origin: string; version: number; changes: Change[] }[];
  claims: Vector | undefined;
  deps: Vector | undefined;
  readonly spans: Span[];
}

/** A message with its size. */
export interface Outgoing {
  readonly m: Draft;
  size: number;
  changes: number;
}

export function newDraft(remaining: number, reached: number): Draft {
  return { reached, remaining, groups: [], claims: undefined, deps: undefined, spans: [] };
}

export function messageOf(m: Draft): Changes {
  return { type: TypeChanges, ...m };
}

// A change's size at most, as if it named everything in full.
function boundOf(ch: Change): number {
  return cellSize + utf8Length(ch.table) + utf8Length(ch.cid) + ch.pk.length + valueSize(ch.val);
}

/** What a message is counted as in the window, the same on both sides. */
export function sizeOf(m: {
  readonly groups: readonly Group[];
  readonly claims: Vector | undefined;
  readonly deps: Vector | undefined;
  readonly spans: readonly Span[];
}): number {
  let size = headerSize + vectorSize(m.claims) + vectorSize(m.deps);
  for (const s of m.spans) size += spanSize + vectorSize(s.deps);
  for (const g of m.groups) {
    size += groupSize;
    for (const ch of g.changes) size += boundOf(ch);
  }
  return size;
}

export function vectorSize(v: Vector | undefined): number {
  return 10 + (v?.size ?? 0) * (SiteIDLen + 8);
}

export function countChanges(m: { readonly groups: readonly Group[] }): number {
  return m.groups.reduce((n, g) => n + g.changes.length, 0);
}

/**
 * Makes messages of entries that were read, and says whether nothing was left out (`complete`). It is one message mostly; a
 * run of changes with one (L, seq), which a Read does not split, may need several. Each says what it reached; the last
 * one's is the caller's to set.
 */
export function compose(
  c: CoreState,
  l: Link,
  entries: readonly Entry[],
  remaining: number,
): { readonly parts: Outgoing[]; readonly complete: boolean } {
  const parts: Outgoing[] = [];
  let complete = true;
  for (const e of entries) {
    let fresh = true; // no group of this entry in the current message yet
    for (const ch of e.changes) {
      const bound = boundOf(ch);
      if (!sendable(ch) || headerSize + groupSize + bound > l.maxMessage) {
        complete = false;
        c.counters.tooLarge++;
        c.event(l, { kind: EventTooLarge, table: ch.table, cid: ch.cid, size: bound });
        continue;
      }
      let last = parts.at(-1);
      if (!last || isFull(last, bound, l.maxMessage)) {
        last = { m: newDraft(remaining, reachedOf(l, e.l - 1)), size: headerSize, changes: 0 };
        parts.push(last);
        fresh = true;
      }
      add(last, e, ch, fresh, bound);
      fresh = false;
    }
  }
  for (const part of parts) part.size = sizeOf(part.m);
  return { parts, complete };
}

// Whether a change of size bound has to go into another message.
function isFull(o: Outgoing, bound: number, maxMessage: number): boolean {
  return o.changes >= SoftChanges || o.size + groupSize + bound > Math.min(maxMessage, WindowBytes);
}

function add(o: Outgoing, e: Entry, ch: Change, fresh: boolean, bound: number): void {
  if (fresh) {
    o.m.groups.push({ origin: e.origin, version: e.version, changes: [] });
    o.size += groupSize;
  }
  o.m.groups.at(-1)?.changes.push(ch);
  o.size += bound;
  o.changes++;
}

// Whether the codec can carry a change's names.
function sendable(ch: Change): boolean {
  return nameOK(ch.table) && nameOK(ch.cid) && ch.site.length <= 2 * SiteIDLen;
}

export function nameOK(s: string): boolean {
  return textOK(s, MaxName);
}

export function textOK(s: string, most: number): boolean {
  const n = utf8Length(s);
  return n > 0 && n <= most;
}
