// The tables of a schema message as bytes, and back.

import type { Column } from "../changeset/schema.ts";
import type { ByteWriter } from "../changeset/writer.ts";
import { parseFlags } from "./codec.ts";
import { nameOK, textOK } from "./compose.ts";
import { malformed } from "./errors.ts";
import { MaxColumns, MaxName, MaxSchemaSQL, MaxTypeName, type TableSchema } from "./message.ts";
import { appendString, appendUvarint, type Parser, utf8Length } from "./wire.ts";

// Flag bits of a column.
const flagNotNull = 1;
const flagDefault = 2;

/** The fewest bytes of a column. */
const minColumn = 5;

export function appendTable(w: ByteWriter, t: TableSchema): void {
  appendString(w, t.name);
  appendString(w, t.sql);
  appendUvarint(w, t.columns.length);
  for (const c of t.columns) {
    appendString(w, c.name);
    appendString(w, c.type);
    w.byte((c.notNull ? flagNotNull : 0) | (c.defaultValue !== undefined ? flagDefault : 0));
    if (c.defaultValue !== undefined) appendString(w, c.defaultValue);
    appendUvarint(w, c.key);
  }
}

export function parseColumns(p: Parser): Column[] {
  const columns: Column[] = [];
  for (let n = p.count("columns", MaxColumns, minColumn); n > 0; n--) {
    const name = p.text("a name", 1, MaxName);
    const type = p.text("a type", 0, MaxTypeName);
    const f = parseFlags(p, flagNotNull | flagDefault);
    const defaultValue = (f & flagDefault) !== 0 ? p.text("a default", 1, MaxSchemaSQL) : undefined;
    const key = p.number("a place in the primary key", 0);
    if (key > MaxColumns) throw malformed("a place in the primary key is above 2000");
    columns.push({ name, type, notNull: (f & flagNotNull) !== 0, defaultValue, key });
  }
  return columns;
}

/** How many bytes a table takes in a message, at most; undefined where no message holds it. */
export function sizeOfTable(t: TableSchema): number | undefined {
  if (!nameOK(t.name) || !textOK(t.sql, MaxSchemaSQL) || t.columns.length > MaxColumns) return undefined;
  let size = utf8Length(t.name) + utf8Length(t.sql) + 12;
  for (const { name, type, defaultValue, key } of t.columns) {
    const ok =
      nameOK(name) &&
      (type === "" || textOK(type, MaxTypeName)) &&
      (defaultValue === undefined || textOK(defaultValue, MaxSchemaSQL)) &&
      key <= MaxColumns;
    if (!ok) return undefined;
    size += utf8Length(name) + utf8Length(type) + utf8Length(defaultValue ?? "") + 12;
  }
  return size;
}
