import { type KeyboardEvent, useId, useRef, useState } from "react";
import { useClient, useStatus } from "../react/index.ts";
import { sentence } from "./failures.ts";
import { Grid } from "./grid/grid.tsx";
import { SqlBox } from "./sql-box.tsx";
import { useTables } from "./tables.ts";

const SQL = "\0sql"; // no table has this name
const firstTable = `CREATE TABLE notes (
  id TEXT PRIMARY KEY NOT NULL,
  text TEXT NOT NULL DEFAULT '',
  done INTEGER NOT NULL DEFAULT 0
);
SELECT crsql_as_crr('notes');`;

/** The tables as tabs, and a tab for SQL. */
export function Workspace() {
  const { tables, error } = useTables();
  const { writer, members } = useStatus();
  const [chosen, setChosen] = useState<string>();
  const tabs = useRef<HTMLDivElement>(null);
  const id = useId();

  const names = [...(tables ?? []).map((t) => t.name), SQL];
  const current = chosen !== undefined && names.includes(chosen) ? chosen : (names[0] as string);
  const table = tables?.find((t) => t.name === current);

  function onKeyDown(event: KeyboardEvent) {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by === 0) return;
    event.preventDefault();
    const next = names[(names.indexOf(current) + by + names.length) % names.length] as string;
    setChosen(next);
    tabs.current?.querySelector<HTMLElement>(`[data-name="${CSS.escape(next)}"]`)?.focus();
  }

  return (
    <div className="card workspace">
      <div className="tabs" role="tablist" aria-label="Tables" ref={tabs} onKeyDown={onKeyDown}>
        {names.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            id={`${id}${name}`}
            data-name={name}
            data-testid={name === SQL ? "tab-sql" : `tab-${name}`}
            aria-selected={name === current}
            aria-controls={`${id}panel`}
            tabIndex={name === current ? 0 : -1}
            onClick={() => setChosen(name)}
          >
            {name === SQL ? "SQL" : name}
          </button>
        ))}
      </div>
      <div role="tabpanel" id={`${id}panel`} aria-labelledby={`${id}${current}`}>
        {error !== undefined && <p className="sql-error">{sentence(error)}</p>}
        {table && <Grid key={table.name} table={table} writer={writer} />}
        {current === SQL && (
          <>
            {tables?.length === 0 && <NoTables writer={writer} alone={members.length === 0} />}
            <SqlBox initial="SELECT name FROM sqlite_master WHERE type = 'table'" writer={writer} />
          </>
        )}
      </div>
    </div>
  );
}

function NoTables({ writer, alone }: { writer: boolean; alone: boolean }) {
  const client = useClient();
  const [error, setError] = useState<string>();

  async function create() {
    try {
      await client.exec(firstTable);
    } catch (err) {
      setError(err instanceof Error ? err.message : String(err));
    }
  }

  return (
    <div className="nothing" data-testid="no-tables">
      <p>
        {alone
          ? "There are no tables yet."
          : "There are no tables yet; they arrive with the first peer that has some."}
      </p>
      {writer && (
        <button type="button" data-testid="first-table" onClick={() => void create()}>
          Add a table of notes
        </button>
      )}
      {error !== undefined && <p className="sql-error">{sentence(error)}</p>}
    </div>
  );
}
