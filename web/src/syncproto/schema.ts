// A link's part in passing schemas on.

import { compareBytes } from "../changeset/value.ts";
import { nameOK, textOK } from "./compose.ts";
import { readOnly } from "./inbox.ts";
import type { Link } from "./link.ts";
import {
  MaxSchemaSQL,
  MaxSchemaTables,
  type Schema,
  SchemaHashLen,
  type TableSchema,
  TypeSchema,
} from "./message.ts";
import type { LinkID } from "./ops.ts";
import type { CoreState } from "./state.ts";
import { EventSchemaDiffers, EventTooLarge } from "./status.ts";
import { compareText, utf8Length } from "./wire.ts";

const noHash = new Uint8Array(SchemaHashLen);

/** A link's part in passing schemas on. */
export interface SchemaState {
  remoteHash: Uint8Array;
  sentHash: Uint8Array;
  /** A SchemaRequest is outstanding: what came after it waits. */
  schemaWait: boolean;
  /** Came meanwhile; the latest only, since it is complete. */
  schemaNext: readonly TableSchema[] | undefined;
}

export function newSchemaState(): SchemaState {
  return { remoteHash: noHash, sentHash: noHash, schemaWait: false, schemaNext: undefined };
}

/** Whether two schema hashes are equal. */
export function sameHash(a: Uint8Array, b: Uint8Array): boolean {
  return compareBytes(a, b) === 0;
}

export function schemaChanged(c: CoreState, hash: Uint8Array, tables: readonly TableSchema[]): void {
  c.schemaHash = hash;
  c.schemaGiven = true;
  c.schemaTables = [...tables].sort((a, b) => compareText(a.name, b.name));
}

/** Sends our tables to one whose schema differs, once for each state of ours. */
export function announceSchema(c: CoreState, l: Link): void {
  const hash = c.schemaHash;
  if (!c.cfg.writer || !c.schemaGiven || sameHash(hash, noHash)) return;
  if (sameHash(hash, l.remoteHash) || sameHash(hash, l.sentHash)) return;
  l.sentHash = hash;
  const tables: TableSchema[] = [];
  let size = 64;
  for (const t of c.schemaTables) {
    size += utf8Length(t.name) + utf8Length(t.sql) + 10;
    if (
      !nameOK(t.name) ||
      !textOK(t.sql, MaxSchemaSQL) ||
      size > l.maxMessage ||
      tables.length === MaxSchemaTables
    ) {
      c.event(l, { kind: EventTooLarge, table: t.name, size: utf8Length(t.sql) });
      continue;
    }
    tables.push(t);
  }
  c.send(l, { type: TypeSchema, hash, tables });
}

export function stepSchema(c: CoreState, l: Link, m: Schema): void {
  if (!l.writer) {
    c.fail(l, readOnly());
    return;
  }
  l.remoteHash = m.hash;
  if (sameHash(m.hash, c.schemaHash) || m.tables.length === 0) return;
  if (l.schemaWait) {
    l.schemaNext = m.tables;
    return;
  }
  l.schemaWait = true;
  c.pending.schemas.push({ link: l.id, tables: m.tables });
}

export function schemaApplied(c: CoreState, id: LinkID): void {
  const l = c.open(id);
  if (!l?.schemaWait) return;
  if (l.schemaNext) {
    c.pending.schemas.push({ link: id, tables: l.schemaNext });
    l.schemaNext = undefined;
    return;
  }
  l.schemaWait = false;
  if (!sameHash(l.remoteHash, c.schemaHash)) c.event(l, { kind: EventSchemaDiffers });
}
