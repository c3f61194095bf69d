import { useRef, useState } from "react";
import { quoteIdentifier } from "../../engine/sqlite.ts";
import { type SqlValue, useClient, useQuery } from "../../react/index.ts";
import {
  type Column,
  cellSQL,
  deleteSQL,
  EDIT_BYTES,
  keyColumns,
  type Order,
  PAGE_ROWS,
  pageRows,
  pageSQL,
  type Row,
  type Table,
  updateSQL,
} from "../tables.ts";
import { kindOfColumn, sizeText } from "../values.ts";
import { AddRow } from "./add-row.tsx";
import { CellEditor } from "./cell-editor.tsx";
import { CellView, cellClass, plain } from "./cell-view.tsx";
import { DeleteButton } from "./delete-button.tsx";
import { Pager } from "./pager.tsx";
import { useGridKeys } from "./use-grid-keys.ts";

interface Editing {
  readonly row: string;
  readonly column: string;
  readonly value: SqlValue;
}

/** One table as an editable grid, a page of rows at a time, kept current. */
export function Grid({ table, writer }: { table: Table; writer: boolean }) {
  const client = useClient();
  const [order, setOrder] = useState<Order>();
  const [page, setPage] = useState(0);
  const [editing, setEditing] = useState<Editing>();
  const [notice, setNotice] = useState<string>();
  const [adding, setAdding] = useState(false);
  const grid = useRef<HTMLTableElement>(null);

  const count = useQuery(`SELECT count(*) FROM ${quoteIdentifier(table.name)}`, [], [table.name]);
  const total = Number(count.result?.rows[0]?.[0] ?? 0);
  const pages = Math.max(1, Math.ceil(total / PAGE_ROWS));
  const shown = Math.min(page, pages - 1);
  const body = useQuery(pageSQL(table, order), [BigInt(shown * PAGE_ROWS)], [table.name]);
  const rows = pageRows(table, body.result?.rows ?? []);

  // The delete button of a row is its last cell.
  const columns = table.columns.length + (writer ? 1 : 0);
  const keys = useGridKeys(grid, { rows: rows.length, columns }, (by) => turn(shown + by));
  const keyNames = keyColumns(table);

  function turn(to: number) {
    setPage(Math.max(0, Math.min(to, pages - 1)));
    setEditing(undefined);
  }

  function sort(column: Column) {
    setOrder((last) =>
      last?.column !== column.name
        ? { column: column.name, down: false }
        : last.down
          ? undefined
          : { ...last, down: true },
    );
    turn(0);
  }

  async function edit(row: Row, index: number) {
    const column = table.columns[index];
    const cell = row.cells[index];
    setNotice(undefined);
    if (column === undefined || cell === undefined) return;
    if (!writer) return setNotice("You joined by a read link: the data cannot be changed here.");
    if (column.key > 0) {
      return setNotice(
        "A key names its row and stays as it is. To change it, add a row and delete this one.",
      );
    }
    if (cell.size > EDIT_BYTES) {
      return setNotice(
        `This value has ${sizeText(cell.size)}; a cell edits up to ${sizeText(EDIT_BYTES)}. Use SQL.`,
      );
    }
    let value = cell.value;
    if (cell.cut) {
      try {
        value = (await client.query(cellSQL(table, column), row.key)).rows[0]?.[0] ?? null;
      } catch (error) {
        return setNotice(error instanceof Error ? error.message : String(error));
      }
    }
    setEditing({ row: row.id, column: column.name, value });
  }

  return (
    <section className="grid-panel" aria-label={`Table ${table.name}`}>
      <div className="grid-bar">
        <p className="count" data-testid="row-count" data-count={total}>
          {count.result ? `${total.toLocaleString("en")} ${total === 1 ? "row" : "rows"}` : "Counting…"}
        </p>
        {writer && (
          <button
            type="button"
            data-testid="add-row"
            aria-expanded={adding}
            onClick={() => setAdding(!adding)}
          >
            Add a row
          </button>
        )}
        <Pager page={shown} pages={pages} turn={turn} />
      </div>
      {adding && writer && <AddRow table={table} close={() => setAdding(false)} />}
      <p className="notice" role="status">
        {body.error ?? count.error ?? notice}
      </p>
      <div className="grid-scroll" tabIndex={rows.length === 0 ? 0 : -1}>
        <table
          ref={grid}
          // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: a table with cells to edit is an ARIA grid
          role="grid"
          data-testid="grid"
          aria-label={table.name}
          aria-rowcount={total + 1}
          aria-readonly={!writer}
          aria-busy={body.pending}
          onKeyDown={keys.onKeyDown}
        >
          <thead>
            <tr aria-rowindex={1}>
              {table.columns.map((column) => (
                <th
                  key={column.name}
                  scope="col"
                  className={numeric(column) ? "numeric" : ""}
                  aria-sort={sortOf(order, column)}
                >
                  <button
                    type="button"
                    className="sort"
                    onClick={() => sort(column)}
                    title={`Sort by ${column.name}`}
                  >
                    {column.key > 0 && <span className="key-mark">key</span>}
                    {column.name}
                    <span aria-hidden="true">{arrow(order, column)}</span>
                  </button>
                </th>
              ))}
              {writer && (
                <th scope="col">
                  <span className="visually-hidden">Delete</span>
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {rows.map((row, r) => {
              const name = row.key.map(plain).join(", ");
              return (
                <tr key={row.id} data-testid="row" data-key={name} aria-rowindex={shown * PAGE_ROWS + r + 2}>
                  {table.columns.map((column, c) => {
                    const open = editing?.row === row.id && editing.column === column.name;
                    const cell = row.cells[c];
                    if (cell === undefined) return null;
                    return (
                      <td
                        key={column.name}
                        // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: named, so that it can be read-only
                        role="gridcell"
                        className={cellClass(cell.value)}
                        data-cell={`${r}-${c}`}
                        data-column={column.name}
                        data-type={cell.value === null ? "null" : typeof cell.value}
                        tabIndex={keys.active.row === r && keys.active.column === c ? 0 : -1}
                        aria-readonly={!writer || column.key > 0}
                        onFocus={() => keys.setActive({ row: r, column: c })}
                        onDoubleClick={() => !open && void edit(row, c)}
                        onKeyDown={(event) => {
                          if (open || (event.key !== "Enter" && event.key !== "F2")) return;
                          event.preventDefault();
                          void edit(row, c);
                        }}
                      >
                        {open ? (
                          <CellEditor
                            label={`${column.name} of ${name}`}
                            declared={column.type}
                            value={editing.value}
                            save={async (value) => {
                              await client.exec(updateSQL(table, column), [value, ...row.key]);
                            }}
                            close={(refocus) => {
                              setEditing(undefined);
                              if (refocus) keys.focus({ row: r, column: c });
                            }}
                          />
                        ) : (
                          <CellView cell={cell} />
                        )}
                      </td>
                    );
                  })}
                  {writer && (
                    <td className="row-tools">
                      <DeleteButton
                        cell={`${r}-${table.columns.length}`}
                        focusable={keys.active.row === r && keys.active.column === table.columns.length}
                        name={name}
                        onFocus={() => keys.setActive({ row: r, column: table.columns.length })}
                        remove={async () => {
                          try {
                            await client.exec(deleteSQL(table), row.key);
                            setNotice(`Row ${name} is deleted.`);
                          } catch (error) {
                            setNotice(error instanceof Error ? error.message : String(error));
                          }
                        }}
                      />
                    </td>
                  )}
                </tr>
              );
            })}
          </tbody>
        </table>
        {body.result && total === 0 && <p className="nothing">No rows yet.</p>}
      </div>
      <p className="hint">
        {writer ? "Double-click, Enter or F2 edits a cell. " : ""}
        {keyNames.length > 1 && `The key is ${keyNames.map((c) => c.name).join(" and ")}.`}
      </p>
    </section>
  );
}

/** Numbers stand to the right, and so does the head of their column. */
function numeric(column: Column): boolean {
  const kind = kindOfColumn(column.type);
  return kind === "INTEGER" || kind === "REAL";
}

function sortOf(order: Order | undefined, column: Column): "ascending" | "descending" | "none" {
  if (order?.column !== column.name) return "none";
  return order.down ? "descending" : "ascending";
}

function arrow(order: Order | undefined, column: Column): string {
  if (order?.column !== column.name) return "";
  return order.down ? " ↓" : " ↑";
}
