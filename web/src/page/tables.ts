// The room's tables, and the SQL with which the grid reads and changes them.

import { quoteIdentifier } from "../engine/sqlite.ts";
import { type SqlValue, useQuery } from "../react/index.ts";

export interface Column {
  readonly name: string;
  readonly type: string;
  readonly notNull: boolean;
  /** The default as SQL, or null. */
  readonly fallback: string | null;
  /** Its place in the primary key from 1, or 0. */
  readonly key: number;
}

export interface Table {
  readonly name: string;
  readonly columns: readonly Column[];
}

/** A cell of the grid: a long value is cut, and `size` is its whole length in bytes. */
export interface Cell {
  readonly value: SqlValue;
  readonly size: number;
  readonly cut: boolean;
}

export interface Row {
  /** Stands for the primary key among the rows of a table. */
  readonly id: string;
  /** The values of the primary key, in the order of `keyColumns`. */
  readonly key: readonly SqlValue[];
  readonly cells: readonly Cell[];
}

/** Rows on one page of the grid. */
export const PAGE_ROWS = 100;
/** Bytes of a value that the grid fetches; the rest stays in the database until somebody edits it. */
export const CELL_BYTES = 256;
/** Bytes of the largest value that can be edited in a cell. */
export const EDIT_BYTES = 65_536;

const schemaSQL = `SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk
  FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
  WHERE m.type = 'table' AND EXISTS (SELECT 1 FROM sqlite_master AS k WHERE k.name = m.name || '__crsql_clock')
  ORDER BY m.name, c.cid`;

/** The replicated tables, by name; undefined until they are known. */
export function useTables(): { tables: readonly Table[] | undefined; error: string | undefined } {
  const { result, error } = useQuery(schemaSQL);
  if (result === undefined) return { tables: undefined, error };
  const tables: { name: string; columns: Column[] }[] = [];
  for (const [table, name, type, notNull, fallback, key] of result.rows) {
    if (tables.at(-1)?.name !== table) tables.push({ name: String(table), columns: [] });
    tables.at(-1)?.columns.push({
      name: String(name),
      type: String(type),
      notNull: Number(notNull) !== 0,
      fallback: fallback === null || fallback === undefined ? null : String(fallback),
      key: Number(key),
    });
  }
  return { tables, error };
}

/** The columns of the primary key, in its order. */
export function keyColumns(table: Table): Column[] {
  return table.columns.filter((c) => c.key > 0).sort((a, b) => a.key - b.key);
}

/** Reads one page. Each column comes as three: the value or its beginning, its length, and whether it is cut. */
export function pageSQL(table: Table, order: Order | undefined): string {
  const columns = table.columns.flatMap((column) => {
    const c = quoteIdentifier(column.name);
    const long = `typeof(${c}) IN ('text', 'blob') AND length(CAST(${c} AS BLOB)) > ${CELL_BYTES}`;
    return [
      `CASE WHEN ${long} THEN substr(${c}, 1, ${CELL_BYTES}) ELSE ${c} END`,
      `CASE WHEN typeof(${c}) IN ('text', 'blob') THEN length(CAST(${c} AS BLOB)) ELSE 0 END`,
      long,
    ];
  });
  const keys = keyColumns(table).map((c) => quoteIdentifier(c.name));
  const sort = order ? [`${quoteIdentifier(order.column)} ${order.down ? "DESC" : "ASC"}`] : [];
  return `SELECT ${[...keys, ...columns].join(", ")} FROM ${quoteIdentifier(table.name)}
    ORDER BY ${[...sort, ...keys].join(", ")} LIMIT ${PAGE_ROWS} OFFSET ?`;
}

export interface Order {
  readonly column: string;
  readonly down: boolean;
}

/** The rows of a result of `pageSQL`. */
export function pageRows(table: Table, rows: readonly (readonly SqlValue[])[]): Row[] {
  const keys = keyColumns(table).length;
  return rows.map((row) => {
    const key = row.slice(0, keys);
    const cells: Cell[] = [];
    for (let i = keys; i + 2 < row.length; i += 3) {
      cells.push({ value: row[i] as SqlValue, size: Number(row[i + 1]), cut: Number(row[i + 2]) === 1 });
    }
    return { id: key.map(idPart).join(","), key, cells };
  });
}

function idPart(value: SqlValue): string {
  if (value instanceof Uint8Array) return `x${value.join(".")}`;
  return `${typeof value}:${encodeURIComponent(String(value))}`;
}

function where(table: Table): string {
  return keyColumns(table)
    .map((c) => `${quoteIdentifier(c.name)} = ?`)
    .join(" AND ");
}

/** Reads one whole value; its arguments are the key. */
export function cellSQL(table: Table, column: Column): string {
  return `SELECT ${quoteIdentifier(column.name)} FROM ${quoteIdentifier(table.name)} WHERE ${where(table)}`;
}

/** Writes one value; its arguments are the value and the key. */
export function updateSQL(table: Table, column: Column): string {
  return `UPDATE ${quoteIdentifier(table.name)} SET ${quoteIdentifier(column.name)} = ? WHERE ${where(table)}`;
}

/** Deletes one row; its arguments are the key. */
export function deleteSQL(table: Table): string {
  return `DELETE FROM ${quoteIdentifier(table.name)} WHERE ${where(table)}`;
}

/** Adds one row with values for these columns, in this order; the others take their defaults. */
export function insertSQL(table: Table, columns: readonly Column[]): string {
  const names = columns.map((c) => quoteIdentifier(c.name)).join(", ");
  return `INSERT INTO ${quoteIdentifier(table.name)} (${names}) VALUES (${columns.map(() => "?").join(", ")})`;
}
