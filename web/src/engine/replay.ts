// Trying parked changes again, after the schema changed.

import type { SiteID } from "../changeset/change.ts";
import { mergeChanges, rowsImpacted } from "./apply.ts";
import { logEntry, originOf } from "./log.ts";
import { FIRST_SEQ, parkedChanges } from "./parked.ts";
import type { Catalog } from "./schema.ts";
import type { Database } from "./sqlite.ts";

/**
 * Merges the parked changes that now can be, from local version `next` on, each entry's under a new local version that
 * is logged with the entry's origin. Those still refused stay as they are. Inside the caller's transaction.
 */
export function replayParked(db: Database, catalog: Catalog, self: SiteID, next: number): void {
  let l = next;
  for (const [version] of db.all("SELECT DISTINCT local_version FROM crmesh_parked ORDER BY 1")) {
    const parked = [...parkedChanges(db, Number(version), FIRST_SEQ)];
    const before = rowsImpacted(db);
    const refused = new Set(mergeChanges(db, catalog, l, parked).map(({ change }) => change));
    if (refused.size === parked.length) continue;
    const { origin, version: originVersion } = originOf(db, Number(version), self);
    for (const change of parked) {
      if (!refused.has(change)) db.run("DELETE FROM crmesh_parked WHERE id = ?", change.id);
    }
    if (rowsImpacted(db) === before) continue;
    logEntry(db, l, origin, originVersion);
    l++;
  }
}
