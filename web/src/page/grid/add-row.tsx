import { type FormEvent, useEffect, useId, useRef, useState } from "react";
import { type SqlValue, useClient } from "../../react/index.ts";
import { type Column, insertSQL, type Table } from "../tables.ts";
import { kindOfColumn, parseValue } from "../values.ts";

/** A form with a field for each column; what stays empty takes the column's default. Stays open for the next row. */
export function AddRow({ table, close }: { table: Table; close(): void }) {
  const client = useClient();
  const [fields, setFields] = useState<Readonly<Record<string, string>>>(() => suggestions(table));
  const [error, setError] = useState<string>();
  const [added, setAdded] = useState(0);
  const first = useRef<HTMLInputElement>(null);
  const id = useId();

  useEffect(() => first.current?.focus(), []);

  async function add(event: FormEvent) {
    event.preventDefault();
    const columns: Column[] = [];
    const values: SqlValue[] = [];
    for (const column of table.columns) {
      const text = fields[column.name] ?? "";
      if (text === "" && !(column.key > 0 && column.fallback === null)) continue;
      const parsed = parseValue(text, kindOfColumn(column.type));
      if ("error" in parsed) return setError(`${column.name}: ${parsed.error}`);
      columns.push(column);
      values.push(parsed.value);
    }
    try {
      await client.exec(insertSQL(table, columns), values);
      setFields(suggestions(table));
      setError(undefined);
      setAdded(added + 1);
      first.current?.focus();
    } catch (err) {
      setError(err instanceof Error ? err.message : String(err));
    }
  }

  return (
    <form
      className="add-row"
      data-testid="add-form"
      aria-label={`New row of ${table.name}`}
      onSubmit={(event) => void add(event)}
      onKeyDown={(event) => {
        if (event.key === "Escape") close();
      }}
    >
      {table.columns.map((column, i) => (
        <label key={column.name} htmlFor={`${id}${i}`}>
          <span>
            {column.name} <small>{column.type.toLowerCase() || "any"}</small>
          </span>
          <input
            id={`${id}${i}`}
            name={column.name}
            ref={i === 0 ? first : undefined}
            value={fields[column.name] ?? ""}
            placeholder={
              column.fallback === null ? (column.key > 0 ? "" : "NULL") : `default ${column.fallback}`
            }
            autoComplete="off"
            onChange={(event) => setFields({ ...fields, [column.name]: event.target.value })}
          />
        </label>
      ))}
      <div className="form-end">
        <button type="submit" className="primary" data-testid="add-submit">
          Add
        </button>
        <button type="button" onClick={close}>
          Close
        </button>
        <p role="status" className={error === undefined ? "hint" : "editor-error"}>
          {error ?? (added > 0 ? `${added} added.` : "")}
        </p>
      </div>
    </form>
  );
}

/** An INTEGER key gets a random number: two peers that count up from the same rows would make the same one. */
function suggestions(table: Table): Record<string, string> {
  const keys = table.columns.filter((c) => c.key > 0);
  const [key] = keys;
  if (key === undefined || keys.length > 1 || kindOfColumn(key.type) !== "INTEGER") return {};
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return { [key.name]: String((high % 0x10_0000) * 2 ** 32 + low) };
}
