// A link's part in passing schemas on.

import { schemaDifferences } from "../changeset/schema.ts";
import { compareBytes, compareText } from "../changeset/value.ts";
import { readOnly } from "./inbox.ts";
import type { Link } from "./link.ts";
import {
  MaxGeneration,
  MaxSchemaBytes,
  MaxSchemaTables,
  type Schema,
  SchemaHashLen,
  type TableSchema,
  TypeSchema,
} from "./message.ts";
import type { LinkID } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { EventSchemaDiffers, EventTooLarge } from "./status.ts";
import { sizeOfTable } from "./tables.ts";
import { utf8Length } from "./wire.ts";

const noHash = new Uint8Array(SchemaHashLen);

/** What tells one state of a schema from another. */
interface SchemaVersion {
  readonly hash: Uint8Array;
  readonly generation: number;
}

/** A link's part in passing schemas on. */
export interface SchemaState {
  remoteHash: Uint8Array;
  /** Without their statements; undefined: it has not told them. */
  remoteTables: readonly TableSchema[] | undefined;
  /** Between our tables and those, for a person. */
  differences: readonly string[];
  /** What the other side knows of ours. */
  told: SchemaVersion;
  /** At which our tables were sent to it. */
  sent: SchemaVersion;
  /** A SchemaRequest is outstanding: what came after it waits. */
  schemaWait: boolean;
  /** Came meanwhile; the latest only, since it is complete. */
  schemaNext: Schema | undefined;
}

export function newSchemaState(): SchemaState {
  const none = { hash: noHash, generation: 0 };
  return {
    remoteHash: noHash,
    remoteTables: undefined,
    differences: [],
    told: none,
    sent: none,
    schemaWait: false,
    schemaNext: undefined,
  };
}

/** Whether two schema hashes are equal. */
export function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  return compareBytes(a, b) === 0;
}

function sameVersion(a: SchemaVersion, b: SchemaVersion): boolean {
  return a.generation === b.generation && sameHash(a.hash, b.hash);
}

export function schemaChanged(
  c: CoreState,
  hash: Uint8Array,
  generation: number,
  tables: readonly TableSchema[],
): void {
  c.schemaHash = hash;
  c.schemaGiven = true;
  c.schemaGeneration = Math.min(generation, MaxGeneration);
  c.schemaTables = [...tables].sort((a, b) => compareText(a.name, b.name));
  for (const id of c.order) compareSchema(c, c.link(id));
}

// Finds out how the other side's tables differ from ours, as far as it has told them.
function compareSchema(c: CoreState, l: Link): void {
  const differs = l.remoteTables !== undefined && !sameHash(l.remoteHash, c.schemaHash);
  l.differences = differs ? schemaDifferences(c.schemaTables, l.remoteTables ?? []) : [];
}

/**
 * Tells the other side of our schema: our tables where its schema is another, once for each state of ours; otherwise the
 * hash alone, where it knows another one of us. A reader's tables are no business of others.
 */
export function announceSchema(c: CoreState, l: Link): void {
  if (!c.schemaGiven) return;
  const hash = c.schemaHash;
  const ours = { hash, generation: c.cfg.writer ? c.schemaGeneration : 0 };
  const full =
    c.cfg.writer && !sameHash(hash, noHash) && !sameHash(hash, l.remoteHash) && !sameVersion(ours, l.sent);
  if (!full && sameVersion(ours, l.told)) return;
  l.told = ours;
  if (full) l.sent = ours;
  c.send(l, { type: TypeSchema, ...ours, tables: full ? tablesFor(c, l) : [] });
}

// Those of our tables that a message for the link holds.
function tablesFor(c: CoreState, l: Link): TableSchema[] {
  const tables: TableSchema[] = [];
  let total = 64;
  for (const t of c.schemaTables) {
    const size = sizeOfTable(t);
    const room = Math.min(l.maxMessage, MaxSchemaBytes);
    if (size === undefined || total + size > room || tables.length === MaxSchemaTables) {
      c.event(l, { kind: EventTooLarge, table: t.name, size: size ?? utf8Length(t.sql) });
      continue;
    }
    total += size;
    tables.push(t);
  }
  return tables;
}

export function stepSchema(c: CoreState, l: Link, m: Schema): void {
  if (!l.writer && m.tables.length > 0) {
    c.fail(l, readOnly());
    return;
  }
  if (!sameHash(m.hash, l.remoteHash)) l.remoteTables = undefined;
  l.remoteHash = m.hash;
  if (m.tables.length > 0) l.remoteTables = m.tables.map((t) => ({ ...t, sql: "" }));
  compareSchema(c, l);
  if (!l.writer) return;
  if (l.schemaWait) {
    l.schemaNext = m;
  } else if (concerns(c, m)) {
    l.schemaWait = true;
    requestSchema(c, l, m);
  }
}

// Whether the store is asked about another's schema: where there are other tables, and where ours are those of a later
// generation.
function concerns(c: CoreState, m: Schema): boolean {
  return sameHash(m.hash, c.schemaHash) ? m.generation > c.schemaGeneration : m.tables.length > 0;
}

function requestSchema(c: CoreState, l: Link, { hash, generation, tables }: Schema): void {
  c.pending.schemas.push({ link: l.id, hash, generation, tables });
}

export function schemaApplied(c: CoreState, id: LinkID): void {
  const l = c.open(id);
  if (!l?.schemaWait) return;
  const next = l.schemaNext;
  l.schemaNext = undefined;
  if (next && concerns(c, next)) {
    requestSchema(c, l, next);
    return;
  }
  l.schemaWait = false;
  if (!sameHash(l.remoteHash, c.schemaHash)) c.event(l, { kind: EventSchemaDiffers });
}
