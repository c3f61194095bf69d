// Taking what is missing here of another's schema, with the means of the stock engine.

import {
  columnDefinition,
  missingColumns,
  schemaText,
  type TableSchema,
  whyNotAddable,
} from "../changeset/schema.ts";
import { type Catalog, createTables, readTable, SchemaError, type Table } from "./schema.ts";
import { type Database, quoteIdentifier, SqliteError } from "./sqlite.ts";

/** Columns of a table that the stock engine can make a CRR. */
const MAX_COLUMNS = 63;

/** CRRs that a database has before schemas of others add no more. */
export const MAX_TABLES = 1024;

/**
 * Creates the table, or adds the columns that it lacks and that may be added; a table that is no CRR is left alone. Inside
 * the caller's transaction, which is to be rolled back when this throws. Throws SchemaError for what is not taken.
 */
export function takeTable(db: Database, catalog: Catalog, wanted: TableSchema): void {
  const own = catalog.byName.get(wanted.name);
  if (own !== undefined) {
    addColumns(db, own, wanted);
    return;
  }
  if (db.get("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", wanted.name) !== undefined) return;
  if (catalog.tables.length >= MAX_TABLES) {
    throw new SchemaError(
      `table ${wanted.name} was not created: there are ${catalog.tables.length} tables already, and peers may add no more`,
    );
  }
  createTables(db, [wanted]);
}

function addColumns(db: Database, own: Table, wanted: TableSchema): void {
  const { name } = own;
  let why: string | undefined;
  const add = missingColumns(own.columns, wanted.columns).filter((c) => {
    const reason = whyNotAddable(c);
    if (reason !== undefined) why = `column ${c.name} cannot be added to table ${name}: ${reason}`;
    return reason === undefined;
  });
  if (add.length === 0) {
    if (why !== undefined) throw new SchemaError(why);
    return;
  }
  const columns = [...own.columns, ...add];
  if (columns.length > MAX_COLUMNS) {
    throw new SchemaError(
      `table ${name} would have more than ${MAX_COLUMNS} columns, which no browser can sync`,
    );
  }
  const alter = add.map((c) => `ALTER TABLE ${quoteIdentifier(name)} ADD COLUMN ${columnDefinition(c)}`);
  // First without the engine, which cannot forget an alteration that it is told of. What a reading of a type or default may
  // have missed shows in what it does.
  db.run("SAVEPOINT crmesh_take");
  try {
    for (const statement of alter) db.run(statement);
    if (schemaText([readTable(db, name, own.sql)]) !== schemaText([{ name, columns }])) {
      throw new SchemaError(`the columns of table ${name} become others than the room's schema says`);
    }
  } catch (error) {
    if (!(error instanceof SqliteError) || error.code !== 1) throw error;
    throw new SchemaError(
      `the columns of table ${name} cannot be added as in the room's schema: ${error.message}`,
    );
  } finally {
    db.run("ROLLBACK TO crmesh_take");
    db.run("RELEASE crmesh_take");
  }
  db.run("SELECT crsql_begin_alter(?)", name);
  for (const statement of alter) db.run(statement);
  db.run("SELECT crsql_commit_alter(?)", name);
}
