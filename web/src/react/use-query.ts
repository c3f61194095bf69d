import { useEffect, useRef, useState } from "react";
import { useClient } from "./context.tsx";
import { Live } from "./live.ts";
import type { Rows, SqlValue } from "./source.ts";

/** What a live query has. `rows` are those of the last run that worked, also while a new one is under way. */
export interface QueryState {
  readonly result: Rows | undefined;
  readonly error: string | undefined;
  /** No run of the present SQL and arguments has ended yet. */
  readonly pending: boolean;
}

interface Done {
  readonly key: string;
  readonly result: Rows | undefined;
  readonly error: string | undefined;
}

const none: readonly SqlValue[] = [];

/**
 * Runs a reading statement, and again after each commit, local or remote, that touched one of `tables` (any table, if
 * absent). An error of the statement is returned, not thrown.
 */
export function useQuery(
  sql: string,
  args: readonly SqlValue[] = none,
  tables?: readonly string[],
): QueryState {
  const client = useClient();
  const [done, setDone] = useState<Done>();
  const key = `${sql}\n${args.map(argKey).join()}`;
  const latest = useRef({ args, tables });
  latest.current = { args, tables };

  // The key stands for the SQL and the arguments, which are new objects at each rendering.
  useEffect(() => {
    let over = false;
    const live = new Live(async () => {
      let next: Done;
      try {
        next = { key, result: await client.query(sql, latest.current.args), error: undefined };
      } catch (error) {
        next = { key, result: undefined, error: error instanceof Error ? error.message : String(error) };
      }
      if (!over) setDone((last) => (next.result ? next : { ...next, result: last?.result }));
    });
    const end = client.onChange((changed) => {
      const watched = latest.current.tables;
      if (watched === undefined || watched.some((table) => changed.has(table))) live.poke();
    });
    return () => {
      over = true;
      end();
      live.stop();
    };
  }, [client, key]);

  return {
    result: done?.result,
    error: done?.key === key ? done.error : undefined,
    pending: done?.key !== key,
  };
}

function argKey(value: SqlValue): string {
  if (value instanceof Uint8Array) return `blob:${value.join(" ")}`;
  return value === null ? "null" : `${typeof value}:${JSON.stringify(String(value))}`;
}
