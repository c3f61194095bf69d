// The CRRs of a database: what they are, their hash, and their creation from a peer's schema.

import { type Column, schemaText, type TableSchema } from "../changeset/schema.ts";
import { type Database, quoteIdentifier } from "./sqlite.ts";
import { identifierName, leadingTokens } from "./sqltext.ts";
import { columnNumber } from "./values.ts";

/** One CRR. */
export interface Table extends TableSchema {
  /** Names of the key columns, in the order of the primary key. */
  readonly keys: readonly string[];
  /** Names of the other columns. */
  readonly cells: ReadonlySet<string>;
}

/** A table that cannot be created as a CRR; the message says which and why. */
export class SchemaError extends Error {
  override readonly name = "SchemaError";
}

/** The CRRs of `db`, in ascending bytewise order of their names. */
export function readTables(db: Database): Table[] {
  const rows = db.all(
    `SELECT t.name, t.sql FROM sqlite_master c JOIN sqlite_master t
       ON t.type = 'table' AND c.name = t.name || '__crsql_clock'
     WHERE c.type = 'table' ORDER BY t.name`,
  );
  return rows.map(([name, sql]) => readTable(db, name as string, sql as string));
}

/** One CRR. */
export function readTable(db: Database, name: string, sql: string): Table {
  const columns: Column[] = [];
  const info = db.prepare(
    'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?) ORDER BY cid',
  );
  info.each([name], () => {
    columns.push({
      name: info.columnText(0),
      type: info.columnText(1),
      notNull: columnNumber(info, 2) !== 0,
      defaultValue: info.column(3) === null ? undefined : info.columnText(3),
      key: columnNumber(info, 4),
    });
  });
  const keys = columns.filter((c) => c.key > 0).sort((a, b) => a.key - b.key);
  return {
    name,
    sql,
    columns,
    keys: keys.map((c) => c.name),
    cells: new Set(columns.filter((c) => c.key === 0).map((c) => c.name)),
  };
}

/** The schema hash of docs/PROTOCOL.md, 32 bytes; zeros where there is no CRR. */
export async function schemaHash(tables: readonly TableSchema[]): Promise<Uint8Array> {
  if (tables.length === 0) return new Uint8Array(32);
  const text = new TextEncoder().encode(schemaText(tables));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", text));
}

/**
 * Creates those of `wanted` that `db` does not have, as CRRs; tables that exist are left alone. Inside the caller's
 * transaction, which is to be rolled back when this throws. Returns how many were created. Throws SchemaError for a
 * text that is anything but the one plain CREATE TABLE statement of its name, or a table that cannot be a CRR.
 */
export function createTables(db: Database, wanted: readonly TableSchema[]): number {
  let created = 0;
  for (const { name, sql } of wanted) {
    if (db.get("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", name) !== undefined) continue;
    checkStatement(name, sql);
    try {
      let statements = 0;
      db.script(sql, (statement) => {
        if (statements++ > 0)
          throw new SchemaError(`the schema text of table ${name} holds more than one statement`);
        statement.run();
      });
      db.run("SELECT crsql_as_crr(?)", name);
    } catch (error) {
      if (error instanceof SchemaError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new SchemaError(`table ${name} cannot be created as in the room's schema: ${reason}`);
    }
    created++;
  }
  return created;
}

/** Throws unless `sql` starts as CREATE TABLE name ( and the name is one that a user's table may have. */
function checkStatement(name: string, sql: string): void {
  const [create, table, identifier, open] = leadingTokens(sql, 4);
  const plain = create?.toUpperCase() === "CREATE" && table?.toUpperCase() === "TABLE" && open === "(";
  if (!plain || identifierName(identifier ?? "") !== name) {
    throw new SchemaError(`the schema text of table ${name} is not its CREATE TABLE statement`);
  }
  if (/^(?:sqlite_|crsql_|crmesh_)|__crsql_/i.test(name)) {
    throw new SchemaError(`table ${name} cannot be synced: the name is reserved`);
  }
  if (!/^[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*$/.test(name)) {
    throw new SchemaError(
      `table ${name} cannot be synced in a browser: its name may hold only letters, digits and _`,
    );
  }
  // In a DEFAULT or a CHECK such a function would run with our writes: crsql_internal_sync_bit(1) would end them all.
  if (leadingTokens(sql, sql.length).some((word) => /^["`[]?crsql_/i.test(word))) {
    throw new SchemaError(`the schema text of table ${name} uses a name that begins with crsql_`);
  }
}

/** Cached by its owner for one schema version: the CRRs by name, and statements that span all their clock tables. */
export class Catalog {
  readonly tables: readonly Table[];
  readonly byName: ReadonlyMap<string, Table>;

  constructor(tables: readonly Table[]) {
    this.tables = tables;
    this.byName = new Map(tables.map((table) => [table.name, table]));
  }

  /**
   * Compound SELECTs over all clock tables, each of at most MAX_ARMS arms joined by UNION ALL: `arm` gives the SELECT
   * for a quoted clock table.
   */
  overClocks(arm: (clock: string, table: Table) => string): string[] {
    const texts: string[] = [];
    for (let i = 0; i < this.tables.length; i += MAX_ARMS) {
      const arms = this.tables.slice(i, i + MAX_ARMS).map((table) => arm(clockOf(table), table));
      texts.push(arms.join(" UNION ALL "));
    }
    return texts;
  }
}

/** SQLite refuses compound SELECTs of more than 500 arms. */
const MAX_ARMS = 400;

/** The quoted name of a CRR's clock table. */
export function clockOf(table: Table): string {
  return quoteIdentifier(`${table.name}__crsql_clock`);
}
