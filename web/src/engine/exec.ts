// Local statements: write transactions, remembered by request id, and read-only queries.

import { type Value, valueSize } from "../changeset/value.ts";
import type { QueryResult } from "../worker/store.ts";
import { StatementError } from "./errors.ts";
import type { Database, Statement } from "./sqlite.ts";
import { leadingWord } from "./sqltext.ts";
import { bindValue, columnValue } from "./values.ts";

/** Request ids whose outcome is remembered; the oldest is forgotten when there are more. */
export const MAX_DONE = 1024;

/** The longest request id, in UTF-16 units. */
export const MAX_REQUEST_ID = 256;

/** Rows that a query may return. */
export const MAX_QUERY_ROWS = 100_000;

/** Bytes that the rows of a query may hold, about. */
export const MAX_QUERY_BYTES = 64 * 1024 * 1024;

/** Statements that would end the transaction around them, or reach beyond this database. */
const FORBIDDEN: ReadonlySet<string> = new Set([
  "BEGIN",
  "COMMIT",
  "END",
  "ROLLBACK",
  "SAVEPOINT",
  "RELEASE",
  "ATTACH",
  "DETACH",
  "PRAGMA",
  "VACUUM",
]);

const QUERIES: ReadonlySet<string> = new Set(["SELECT", "WITH", "VALUES", "EXPLAIN"]);

/** Rows changed by the request `id`, if it was done already. */
export function doneBefore(db: Database, id: string): number | undefined {
  const row = db.get("SELECT changes FROM crmesh_done WHERE id = ?", id);
  return row === undefined ? undefined : Number(row[0]);
}

/** Remembers that the request `id` was done; in its transaction. */
export function rememberDone(db: Database, id: string, changes: number): void {
  db.run("INSERT INTO crmesh_done (id, changes) VALUES (?, ?)", id, BigInt(changes));
  db.run(`DELETE FROM crmesh_done WHERE n <= (SELECT max(n) FROM crmesh_done) - ${MAX_DONE}`);
}

/**
 * Runs the statements of `sql` in the caller's transaction, each taking as many of `args` as it has parameters.
 * Returns the number of rows that they inserted, updated and deleted; rows that they return are dropped.
 */
export function runStatements(db: Database, sql: string, args: readonly Value[]): number {
  let used = 0;
  let changes = 0;
  let statements = 0;
  db.script(sql, (statement) => {
    statements++;
    const word = leadingWord(statement.text());
    if (FORBIDDEN.has(word)) {
      throw new StatementError(
        `${word} cannot be used here: the statements of one call are one transaction already`,
      );
    }
    const before = totalChanges(db);
    used = bindSome(statement, args, used);
    while (statement.step());
    if (!db.inTransaction) {
      throw new StatementError("a statement rolled the transaction back; nothing was written");
    }
    if (totalChanges(db) !== before) changes += db.changes;
  });
  if (statements === 0) throw new StatementError("there is no statement in this text");
  if (used < args.length) {
    throw new StatementError(`${args.length} arguments given, but the statements take ${used}`);
  }
  return changes;
}

/** Runs the one statement of `sql`, which may only read. */
export function runQuery(db: Database, sql: string, args: readonly Value[]): QueryResult {
  const columns: string[] = [];
  const rows: Value[][] = [];
  let statements = 0;
  db.run("BEGIN");
  try {
    const before = totalChanges(db);
    db.script(sql, (statement) => {
      if (statements++ > 0) throw new StatementError("a query is one statement; run the others separately");
      if (!QUERIES.has(leadingWord(statement.text()))) {
        throw new StatementError(
          "a query starts with SELECT, WITH or VALUES; use exec for anything that writes",
        );
      }
      const used = bindSome(statement, args, 0);
      if (used < args.length)
        throw new StatementError(`${args.length} arguments given, but the query takes ${used}`);
      for (let i = 0, n = statement.columnCount; i < n; i++) columns.push(statement.columnName(i));
      collect(statement, columns.length, rows);
    });
    if (statements === 0) throw new StatementError("there is no statement in this text");
    if (totalChanges(db) !== before) throw new StatementError("a query cannot write; use exec instead");
    return { columns, rows };
  } finally {
    if (db.inTransaction) db.run("ROLLBACK");
  }
}

function collect(statement: Statement, columns: number, rows: Value[][]): void {
  let bytes = 0;
  while (statement.step()) {
    if (rows.length >= MAX_QUERY_ROWS) {
      throw new StatementError(`the query returns more than ${MAX_QUERY_ROWS} rows; add a LIMIT`);
    }
    const row: Value[] = [];
    for (let i = 0; i < columns; i++) {
      const value = columnValue(statement, i);
      bytes += valueSize(value);
      row.push(value);
    }
    if (bytes > MAX_QUERY_BYTES) {
      throw new StatementError(
        `the query returns more than ${MAX_QUERY_BYTES >> 20} MiB; select less at once`,
      );
    }
    rows.push(row);
  }
}

/** Binds as many of `args`, from `used` on, as the statement takes; returns how many are used then. */
function bindSome(statement: Statement, args: readonly Value[], used: number): number {
  const end = used + statement.parameterCount;
  if (end > args.length)
    throw new StatementError(`the statements take ${end} arguments or more, ${args.length} given`);
  for (let i = used; i < end; i++) bindValue(statement, i - used + 1, args[i] as Value);
  return end;
}

function totalChanges(db: Database): bigint {
  return db.get("SELECT total_changes()")?.[0] as bigint;
}
