// What a trace says of what cores want done, line for line as Go's pkg/mesh/meshtest. Peers and sites are letters.

import { codeName } from "../errors.ts";
import {
  type Group,
  type Message,
  TypeBye,
  TypeChanges,
  TypeErrorMessage,
  TypeHave,
  TypeHello,
  TypePrune,
  TypeSchema,
} from "../message.ts";
import type { ApplyRequest, ReadRequest, SchemaRequest } from "../ops.ts";
import {
  type Event,
  EventCaughtUp,
  EventLive,
  EventParked,
  EventRemoteError,
  EventSameSite,
  EventSchemaDiffers,
  EventServed,
  EventStaleCopy,
  EventTooLarge,
  EventVectorFull,
} from "../status.ts";
import { EntryEnd, type Position, type SiteID } from "../vector.ts";
import { keyOf } from "./store.ts";

export function letter(site: SiteID): string {
  return String.fromCharCode(Number.parseInt(site.slice(0, 2), 16));
}

function letters(sites: readonly SiteID[]): string {
  return `[${sites.map(letter).join(" ")}]`;
}

/** Like {a:3 b:1}. */
export function vectorText(v: ReadonlyMap<SiteID, number>): string {
  const entries = [...v].sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([site, version]) => `${letter(site)}:${version}`).join(" ")}}`;
}

// Like a:3(k=1 l=2): origin, version, and the keys with their values.
function groupText(g: Group): string {
  const cells = g.changes.map((ch) => {
    const { key, cell } = keyOf(ch);
    return `${key.length > 20 ? `${key.slice(0, 4)}..${key.length}` : key}=${cell.value}`;
  });
  return `${letter(g.origin)}:${g.version}(${cells.join(" ")})`;
}

export function flags(...words: string[]): string {
  return words.map((w) => (w ? ` ${w}` : "")).join("");
}

export function when(set: boolean, word: string): string {
  return set ? word : "";
}

/** A message in one line. */
export function messageText(m: Message): string {
  switch (m.type) {
    case TypeHello: {
      const set = flags(when(m.writer, "writer"), when(m.feed, "feed"), when(m.busy, "busy"));
      return `hello${set} resume=${m.resume} neighbours=${letters(m.neighbours)} vector=${vectorText(m.vector)}`;
    }
    case TypeChanges: {
      let text = `changes reached=${m.reached}`;
      if (m.remaining > 0) text += ` remaining=${m.remaining}`;
      for (const g of m.groups) text += ` ${groupText(g)}`;
      if (m.claims) text += ` claims=${vectorText(m.claims)} deps=${vectorText(m.deps ?? new Map())}`;
      for (const s of m.spans) {
        text += ` span=${letter(s.origin)}:${s.after + 1}-${s.version}`;
        if (s.deps.size > 0) text += ` needs=${vectorText(s.deps)}`;
      }
      return text;
    }
    case TypeHave: {
      const set = flags(when(m.feed, "feed"), when(m.busy, "busy"));
      const text = `have${set} applied=${m.applied} delta=${vectorText(m.delta)}`;
      return m.neighbours ? `${text} neighbours=${letters(m.neighbours)}` : text;
    }
    case TypeErrorMessage:
      return `error ${codeName(m.code)}`;
    case TypePrune:
      return `prune ${letters(m.prune)} graft ${letters(m.graft)}`;
    case TypeBye:
      return `bye ${m.sentence}`;
    case TypeSchema: {
      const names = m.tables.map((t) => t.name);
      const text = names.length > 0 ? `schema [${names.join(" ")}]` : "schema hash";
      return m.generation > 0 ? `${text} generation=${m.generation}` : text;
    }
    default:
      return ""; // nobody asks for digests in a simulation, and no core sends a relay
  }
}

/** What a peer does about another's schema. */
export function schemaRequestText(name: string, r: SchemaRequest): string {
  const names = r.tables.map((t) => t.name);
  return names.length > 0
    ? `${name} creates [${names.join(" ")}]`
    : `${name} is of generation ${r.generation}`;
}

export function readText(name: string, other: string, r: ReadRequest): string {
  const only = r.only ? ` only ${r.only.join(" ")}` : "";
  return `${name} reads for ${other} behind ${positionText(r.after)}${only}${flags(when(r.count, "counting"))}`;
}

// Like 3 for all of an entry and 3/0 for a part.
function positionText(p: Position): string {
  return p.seq === EntryEnd ? String(p.l) : `${p.l}/${p.seq}`;
}

export function applyText(name: string, r: ApplyRequest): string {
  const groups = r.groups.map((g) => ` ${groupText(g)}`).join("");
  return `${name} applies${groups} claims=${vectorText(r.claims)} resume=${vectorText(r.resume)}`;
}

const eventNames: Readonly<Record<number, string>> = {
  [EventLive]: "live",
  [EventCaughtUp]: "caught up",
  [EventServed]: "served",
  [EventSchemaDiffers]: "schema differs",
  [EventTooLarge]: "too large",
  [EventStaleCopy]: "stale copy",
  [EventVectorFull]: "vector full",
  [EventParked]: "parked",
  [EventRemoteError]: "remote error",
  [EventSameSite]: "same site",
};

export function eventText(name: string, e: Event): string {
  return `${name} event: ${eventNames[e.kind]} with ${letter(e.remote)}`;
}
