// Tables that sync are not dropped by the way.

import { StatementError } from "./errors.ts";
import type { Catalog, Table } from "./schema.ts";
import type { Database } from "./sqlite.ts";

/**
 * Throws if one of the tables `before` is gone and its clocks are not: the other members would bring the table back, empty, and what
 * its clocks say of rows that are not there would go to newcomers as NULL. Inside the caller's transaction.
 */
export function checkDropped(db: Database, before: readonly Table[], after: Catalog): void {
  if (after.tables === before) return;
  for (const { name } of before) {
    if (after.byName.has(name)) continue;
    if (db.get("SELECT 1 FROM sqlite_master WHERE name = ?", `${name}__crsql_clock`) === undefined) continue;
    throw new StatementError(
      `nothing was done: the table "${name}" syncs, and other members would bring it back without its rows; end its sync first: SELECT crsql_as_table('...')`,
    );
  }
}
