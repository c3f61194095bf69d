import { type KeyboardEvent, useId, useState } from "react";
import { type Rows, useClient } from "../react/index.ts";
import { CellView } from "./grid/cell-view.tsx";
import { CELL_BYTES } from "./tables.ts";

/** Rows of a result that are shown. */
const SHOWN = 500;

type Outcome =
  | { readonly kind: "rows"; readonly rows: Rows; readonly ms: number }
  | { readonly kind: "done"; readonly changes: number; readonly ms: number }
  | { readonly kind: "error"; readonly text: string };

/** A box for SQL: reading statements show their rows, others what they changed. */
export function SqlBox({ initial, writer }: { initial: string; writer: boolean }) {
  const client = useClient();
  const [text, setText] = useState(initial);
  const [running, setRunning] = useState(false);
  const [outcome, setOutcome] = useState<Outcome>();
  const id = useId();

  async function run() {
    if (running || text.trim() === "") return;
    setRunning(true);
    const start = performance.now();
    try {
      if (reads(text)) {
        const rows = await client.query(text);
        setOutcome({ kind: "rows", rows, ms: performance.now() - start });
      } else {
        const { changes } = await client.exec(text);
        setOutcome({ kind: "done", changes, ms: performance.now() - start });
      }
    } catch (error) {
      setOutcome({ kind: "error", text: error instanceof Error ? error.message : String(error) });
    }
    setRunning(false);
  }

  function onKeyDown(event: KeyboardEvent) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void run();
    }
  }

  return (
    <section className="sql" aria-label="SQL">
      <label htmlFor={id}>
        SQL{" "}
        <small>
          {writer
            ? "A table is shared once it is made a CRR: SELECT crsql_as_crr('name')."
            : "Only statements that read: you joined by a read link."}
        </small>
      </label>
      <textarea
        id={id}
        data-testid="sql-input"
        rows={5}
        value={text}
        spellCheck={false}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKeyDown}
      />
      <div className="sql-bar">
        <button
          type="button"
          className="primary"
          data-testid="sql-run"
          disabled={running}
          onClick={() => void run()}
        >
          {running ? "Running…" : "Run"}
        </button>
        <span className="hint">Ctrl+Enter runs it</span>
      </div>
      <div data-testid="sql-outcome" data-kind={outcome?.kind ?? "none"} aria-live="polite">
        {outcome && <Result outcome={outcome} />}
      </div>
    </section>
  );
}

function Result({ outcome }: { outcome: Outcome }) {
  if (outcome.kind === "error") {
    return (
      <p className="sql-error" role="alert" data-testid="sql-error">
        {outcome.text}
      </p>
    );
  }
  const took = `${outcome.ms < 10 ? outcome.ms.toFixed(1) : Math.round(outcome.ms)} ms`;
  if (outcome.kind === "done") {
    return (
      <p className="sql-done">
        Done: {outcome.changes} {outcome.changes === 1 ? "row" : "rows"} changed, {took}.
      </p>
    );
  }
  const { columns, rows } = outcome.rows;
  return (
    <>
      <p className="hint">
        {rows.length.toLocaleString("en")} {rows.length === 1 ? "row" : "rows"}, {took}
        {rows.length > SHOWN && `; the first ${SHOWN} are shown`}
      </p>
      <section
        className="grid-scroll"
        aria-label="Result"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region has to be reachable by keyboard
        tabIndex={0}
      >
        <table data-testid="sql-result">
          <thead>
            <tr>
              {columns.map((name, c) => (
                <th key={c} scope="col">
                  <span className="plain-head">{name}</span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, SHOWN).map((row, r) => (
              <tr key={r}>
                {row.map((value, c) => {
                  const size = value instanceof Uint8Array ? value.length : 0;
                  const cut = typeof value === "string" && value.length > CELL_BYTES;
                  return (
                    <td
                      key={c}
                      className={
                        typeof value === "bigint" || typeof value === "number" ? "cell numeric" : "cell"
                      }
                    >
                      <CellView
                        cell={
                          cut
                            ? { value: value.slice(0, CELL_BYTES), size: value.length, cut }
                            : { value, size, cut }
                        }
                      />
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </>
  );
}

/** Whether a text begins as a statement that only reads. `SELECT crsql_as_crr(...)` and its kin do not. */
export function reads(sql: string): boolean {
  const start = sql.replace(/^(\s|--[^\n]*(\n|$)|\/\*[\s\S]*?\*\/|;)+/, "");
  if (!/^(SELECT|VALUES|WITH|EXPLAIN|PRAGMA)\b/i.test(start)) return false;
  if (/^WITH\b/i.test(start) && /\b(INSERT|UPDATE|DELETE|REPLACE)\b/i.test(start)) return false;
  return !/\bcrsql_(as_crr|as_table|begin_alter|commit_alter|automigrate)\b/i.test(start);
}
