// Local writes beyond what peers accept. The engine increments versions without a bound, and a change beyond MaxVersion is
// parked by everybody: such a write would be seen here and nowhere else, so it is refused, as in Go.

import { MaxVersion, SentinelCID } from "../changeset/change.ts";
import { StatementError } from "./errors.ts";
import type { Catalog, Table } from "./schema.ts";
import { type Database, quoteIdentifier, type SqlValue } from "./sqlite.ts";

/** The bound of versions, causal lengths and seqs, to compare with what the engine has. */
export const VERSION_BOUND = BigInt(MaxVersion);

/**
 * Throws a StatementError that names the table, the key and the column if a row above local version `floor` has a version
 * beyond the bound. Inside the transaction that wrote it, which is to be rolled back then.
 */
export function checkPinned(db: Database, catalog: Catalog, floor: number): void {
  const arms = catalog.overClocks((clock, table) => {
    const i = catalog.tables.indexOf(table);
    return `SELECT ${i}, key, col_name FROM ${clock} WHERE db_version > ?1 AND col_version > ?2`;
  });
  for (const sql of arms) {
    const row = db.get(`${sql} LIMIT 1`, BigInt(floor), VERSION_BOUND);
    if (row === undefined) continue;
    const table = catalog.tables[Number(row[0])] as Table;
    throw new StatementError(pinnedText(table.name, keyOf(db, table, row[1] as bigint), row[2] as string));
  }
}

function pinnedText(table: string, key: string, column: string): string {
  const row = column === SentinelCID;
  const what = row ? "the row" : `column ${JSON.stringify(column)}`;
  const remedy = row ? "use another key" : "delete the row and insert it again";
  return (
    `table ${JSON.stringify(table)}, key ${key}: ${what} is pinned: its version is the highest that peers accept, ` +
    `${MaxVersion}, so that none of them would take this write; ${remedy}`
  );
}

/** How many characters of a key the error shows. */
const MAX_SHOWN = 100;

function keyOf(db: Database, table: Table, key: bigint): string {
  const columns = table.keys.map(quoteIdentifier).join(", ");
  const keys = quoteIdentifier(`${table.name}__crsql_pks`);
  const values = db.get(`SELECT ${columns} FROM ${keys} WHERE __crsql_key = ?`, key) ?? [];
  const text = `(${values.map(valueText).join(", ")})`;
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
}

function valueText(value: SqlValue): string {
  if (typeof value === "string") return `'${value.slice(0, MAX_SHOWN)}'`;
  return value instanceof Uint8Array ? "a blob" : String(value);
}
