// Columns that stock cr-sqlite moves without saying so.

import { type Change, SentinelCID, toHex } from "../changeset/change.ts";
import { parsePacked } from "../changeset/pack.ts";
import { nullValue, type Value } from "../changeset/value.ts";
import { type Catalog, clockOf, type Table } from "./schema.ts";
import { type Database, quoteIdentifier, type Statement } from "./sqlite.ts";
import { bindValue, columnValue } from "./values.ts";

const NONE: readonly Change[] = [];

/**
 * For a create sentinel all the columns that its row has from earlier entries, for anything else nothing. An update of
 * a primary key moves a row's columns to the new key under their old version, so that no entry of their own would
 * bring them. Columns of later entries come with those: under this one's origin a third peer, which covers this
 * origin already, would skip them and yet take the claim for theirs.
 */
export function movedColumns(db: Database, catalog: Catalog, change: Change): readonly Change[] {
  if (change.cid !== SentinelCID || change.cl % 2n === 0n) return NONE;
  const table = catalog.byName.get(change.table);
  if (table === undefined || table.cells.size === 0) return NONE;
  return columnsOf(db, table, parsePacked(change.pk), change);
}

function columnsOf(db: Database, table: Table, key: readonly Value[], sentinel: Change): Change[] {
  const pks = quoteIdentifier(`${table.name}__crsql_pks`);
  const clocks = db.prepare(
    `SELECT c.col_name, c.col_version, s.site_id FROM ${pks} p
       JOIN ${clockOf(table)} c ON c.key = p.__crsql_key LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id
     WHERE ${whereKey(table, "p.")} AND c.col_name <> '-1' AND c.db_version < ?${key.length + 1}`,
  );
  bindKey(clocks, key);
  clocks.bindInteger(key.length + 1, BigInt(sentinel.dbVersion));
  const found: Change[] = [];
  try {
    while (clocks.step()) {
      const cid = clocks.columnText(0);
      const colVersion = clocks.columnInteger(1);
      if (!table.cells.has(cid)) continue;
      const site = toHex(clocks.columnBytes(2));
      found.push({ ...sentinel, cid, val: cellOf(db, table, key, cid), colVersion, site });
    }
  } finally {
    clocks.reset();
  }
  return found;
}

function cellOf(db: Database, table: Table, key: readonly Value[], cid: string): Value {
  const statement = db.prepare(
    `SELECT ${quoteIdentifier(cid)} FROM ${quoteIdentifier(table.name)} WHERE ${whereKey(table, "")}`,
  );
  bindKey(statement, key);
  try {
    return statement.step() ? columnValue(statement, 0) : nullValue();
  } finally {
    statement.reset();
  }
}

function whereKey(table: Table, alias: string): string {
  return table.keys.map((name, i) => `${alias}${quoteIdentifier(name)} IS ?${i + 1}`).join(" AND ");
}

function bindKey(statement: Statement, key: readonly Value[]): void {
  for (const [i, value] of key.entries()) bindValue(statement, i + 1, value);
}
