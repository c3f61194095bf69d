// A new site id for a database whose own versions may be in use elsewhere, as in Go's pkg/crsql.

import { fromHex, MaxVersion, type SiteID, SiteIDLen, toHex } from "../changeset/change.ts";
import { MaxVectorSites } from "../syncproto/message.ts";
import { clearMeta, raiseVector, setMeta } from "./log.ts";
import { VERSION_BOUND } from "./pinned.ts";
import { type Catalog, clockOf } from "./schema.ts";
import type { Database } from "./sqlite.ts";

/** What a database has reached when it gets a new site id. */
export interface Reached {
  readonly site: SiteID;
  /** The highest local version that was ever reported, and the highest own one. */
  readonly high: number;
  readonly own: number;
  /** Own versions up to this one stand for what the database holds; above it another file may have used them for other writes. */
  readonly certain: number;
}

/** What a renewal did. */
export interface Renewed {
  readonly site: SiteID;
  /** The highest local version afterwards, and the highest own one. */
  readonly high: number;
  readonly own: number;
  /** Entries that keep the old site as their origin. */
  readonly entries: number;
  /** Cells that were written anew. */
  readonly reasserted: number;
}

/** A database that cannot get a new site id; the message says why, and what to do. */
export class RenewalError extends Error {
  override readonly name = "RenewalError";
}

/**
 * Gives the database a new site id, in the open transaction, and throws a RenewalError where the vector would become longer
 * than peers take. All that the database holds stays: docs/PROTOCOL.md, "Copies and rollbacks". The engine read the old id when
 * the database was opened and goes on with it: the connection is to be closed after the commit, and nothing else done with it.
 */
export function renewSite(db: Database, catalog: Catalog, at: Reached): Renewed {
  const clocks = catalog.tables.map(clockOf);
  if (Number(db.get("SELECT count(*) FROM crmesh_vector")?.[0]) + 2 > MaxVectorSites) {
    throw new RenewalError(
      `it knows as many databases as peers take, ${MaxVectorSites}: copy what you wrote here, clear this site's data in the browser, and open the link again`,
    );
  }
  const entries = logFormerOwn(db, clocks, at.site, at.certain);
  const site = replaceSite(db, clocks);
  const l = at.high + 1;
  const reasserted = reassert(db, clocks, at.certain, at.own, l);
  const high = reasserted > 0 ? l : at.high;
  const own = newestOwn(db, clocks, at.certain);
  setMeta(db, "high_water", high);
  setMeta(db, "own_high_water", own);
  clearMeta(db, "unmet_own");
  if (at.certain > 0) raiseVector(db, new Map([[at.site, at.certain]]));
  // What was reached in the walks of others was reached while they left out what the old site was said to have.
  db.run("DELETE FROM crmesh_resume");
  return { site, high, own, entries, reasserted };
}

/** Records the own entries up to `certain` as the old site's, and returns how many they are. */
function logFormerOwn(db: Database, clocks: readonly string[], site: SiteID, certain: number): number {
  const count = () => Number(db.get("SELECT count(*) FROM crmesh_log")?.[0]);
  const before = count();
  for (const clock of clocks) {
    db.run(
      `INSERT OR IGNORE INTO crmesh_log SELECT DISTINCT db_version, ?1, db_version FROM ${clock}
         WHERE db_version BETWEEN 1 AND ?2`,
      fromHex(site),
      BigInt(certain),
    );
  }
  return count() - before;
}

/** Makes a new id the database's own, and gives the old one an ordinal like that of any other site. */
function replaceSite(db: Database, clocks: readonly string[]): SiteID {
  const id = uuid();
  const ordinal = db.get("SELECT max(ordinal) + 1 FROM crsql_site_id")?.[0] as bigint;
  db.run("UPDATE crsql_site_id SET ordinal = ? WHERE ordinal = 0", ordinal);
  db.run("INSERT INTO crsql_site_id (site_id, ordinal) VALUES (?, 0)", id);
  for (const clock of clocks) db.run(`UPDATE ${clock} SET site_id = ? WHERE site_id = 0`, ordinal);
  return toHex(id);
}

/** A random UUID of version 4, as the engine makes them. */
function uuid(): Uint8Array {
  const id = crypto.getRandomValues(new Uint8Array(SiteIDLen));
  id[6] = ((id[6] ?? 0) & 0x0f) | 0x40;
  id[8] = ((id[8] ?? 0) & 0x3f) | 0x80;
  return id;
}

/** Own cells above ?1 and up to ?2: those that another file may have written with other content. */
const doubtful =
  "db_version > ?1 AND db_version <= ?2 AND db_version NOT IN (SELECT local_version FROM crmesh_log)";

/**
 * Writes the doubtful own cells anew: under local version `l`, by the new site, and with clocks that beat what others may hold
 * under those versions. Returns how many.
 *
 * A column's version rises by one. Where a row's causal length is all that is in doubt, which is so for what was deleted and
 * for rows that have nothing but a key, that rises by two, so that a delete stays a delete; and all columns of the row come
 * along, since receivers set theirs to zero. Where columns are in doubt as well, they carry the causal length to others.
 */
function reassert(db: Database, clocks: readonly string[], certain: number, own: number, l: number): number {
  const range = [BigInt(certain), BigInt(own)];
  const version = BigInt(l);
  let total = 0;
  for (const clock of clocks) {
    if (db.get(`SELECT 1 FROM ${clock} WHERE ${doubtful} LIMIT 1`, ...range) === undefined) continue;
    if (l > MaxVersion) throw new RenewalError(`it has used up its versions: it has reached ${l - 1}`);
    db.run(
      `UPDATE ${clock} SET col_version = iif(col_version <= ${VERSION_BOUND} - 2, col_version + 2, col_version),
         db_version = ?3, site_id = 0
       WHERE ${doubtful} AND col_name = '-1'
         AND key NOT IN (SELECT key FROM ${clock} WHERE ${doubtful} AND col_name <> '-1')`,
      ...range,
      version,
    );
    db.run(
      `UPDATE ${clock} SET col_version = min(col_version + 1, ${VERSION_BOUND}), db_version = ?1, site_id = 0
       WHERE col_name <> '-1' AND key IN (SELECT key FROM ${clock} WHERE db_version = ?1)`,
      version,
    );
    db.run(
      `UPDATE ${clock} SET col_version = min(col_version + (col_name <> '-1'), ${VERSION_BOUND}), db_version = ?3, site_id = 0
       WHERE ${doubtful}`,
      ...range,
      version,
    );
    db.run(
      `UPDATE ${clock} SET seq = d.n FROM
         (SELECT key AS k, col_name AS c, ?2 + row_number() OVER (ORDER BY key, seq) - 1 AS n FROM ${clock} WHERE db_version = ?1) AS d
       WHERE key = d.k AND col_name = d.c`,
      version,
      BigInt(total),
    );
    total += Number(db.get(`SELECT count(*) FROM ${clock} WHERE db_version = ?`, version)?.[0]);
  }
  return total;
}

/** The highest own version above `certain`; 0: there is none. */
function newestOwn(db: Database, clocks: readonly string[], certain: number): number {
  let own = 0;
  for (const clock of clocks) {
    const row = db.get(
      `SELECT max(db_version) FROM ${clock} WHERE db_version > ? AND db_version <= ${MaxVersion}
         AND db_version NOT IN (SELECT local_version FROM crmesh_log)`,
      BigInt(certain),
    );
    own = Math.max(own, Number(row?.[0] ?? 0));
  }
  return own;
}
