// The tables of the crmesh log and the numbers kept in them. They are plain tables, never CRRs.

import { fromHex, type SiteID, toHex } from "../changeset/change.ts";
import type { Vector } from "../syncproto/vector.ts";
import { parkedBytes } from "./parked.ts";
import type { Catalog } from "./schema.ts";
import type { Database, SqlValue } from "./sqlite.ts";

/** The version of the tables below; a database with a higher one was written by a newer crmesh. */
export const FORMAT = 1;

const TABLES = `
CREATE TABLE IF NOT EXISTS crmesh_log (
  local_version INTEGER PRIMARY KEY, site BLOB NOT NULL, origin_version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS crmesh_vector (site BLOB PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crmesh_resume (site BLOB PRIMARY KEY, reached INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crmesh_meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crmesh_parked (
  id INTEGER PRIMARY KEY, local_version INTEGER NOT NULL, tbl TEXT NOT NULL, pk BLOB NOT NULL, cid TEXT NOT NULL,
  val, col_version INTEGER NOT NULL, site BLOB NOT NULL, cl INTEGER NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS crmesh_parked_version ON crmesh_parked (local_version, seq);
CREATE INDEX IF NOT EXISTS crmesh_parked_row ON crmesh_parked (tbl, pk, cid);
CREATE TABLE IF NOT EXISTS crmesh_parked_count (tbl TEXT NOT NULL, reason TEXT NOT NULL, changes INTEGER NOT NULL,
  bytes INTEGER NOT NULL, PRIMARY KEY (tbl, reason)) WITHOUT ROWID;
INSERT INTO crmesh_parked_count SELECT tbl, reason, count(*), sum(${parkedBytes("")}) FROM crmesh_parked
  WHERE NOT EXISTS (SELECT 1 FROM crmesh_parked_count) GROUP BY tbl, reason;
CREATE TRIGGER IF NOT EXISTS crmesh_parked_in AFTER INSERT ON crmesh_parked BEGIN
  INSERT INTO crmesh_parked_count VALUES (NEW.tbl, NEW.reason, 1, ${parkedBytes("NEW.")})
    ON CONFLICT DO UPDATE SET changes = changes + 1, bytes = bytes + excluded.bytes; END;
CREATE TRIGGER IF NOT EXISTS crmesh_parked_out AFTER DELETE ON crmesh_parked BEGIN
  UPDATE crmesh_parked_count SET changes = changes - 1, bytes = bytes - ${parkedBytes("OLD.")}
    WHERE tbl = OLD.tbl AND reason = OLD.reason;
  DELETE FROM crmesh_parked_count WHERE tbl = OLD.tbl AND reason = OLD.reason AND changes <= 0; END;
CREATE TABLE IF NOT EXISTS crmesh_done (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, changes INTEGER NOT NULL);
`;

/** Creates what is missing of the log's tables, in a transaction of its own. Throws for a format newer than FORMAT. */
export function createLog(db: Database): void {
  db.transaction(() => {
    db.script(TABLES);
    const format = getMeta(db, "format");
    if (format === undefined) setMeta(db, "format", FORMAT);
    else if (format > FORMAT) {
      throw new Error(
        `this database was written by a newer crmesh (format ${format}); reload to get that version`,
      );
    }
  });
}

/** Numbers of crmesh_meta. */
export type MetaKey =
  | "format"
  | "high_water"
  | "own_high_water"
  /** The own version at the first open since a peer was met; none: one was met. */
  | "unmet_own"
  | "schema_generation"
  /** The schema_version at which all that is put aside was tried last. */
  | "schema_tried";

export function getMeta(db: Database, key: MetaKey): number | undefined {
  const row = db.get("SELECT value FROM crmesh_meta WHERE key = ?", key);
  return row === undefined ? undefined : Number(row[0]);
}

export function setMeta(db: Database, key: MetaKey, value: number): void {
  db.run("INSERT OR REPLACE INTO crmesh_meta VALUES (?, ?)", key, BigInt(value));
}

export function clearMeta(db: Database, key: MetaKey): void {
  db.run("DELETE FROM crmesh_meta WHERE key = ?", key);
}

/** The highest L of any entry: of a clock row or a parked row; 0 without any. */
export function newestEntry(db: Database, catalog: Catalog): number {
  let newest = numberOf(db.get("SELECT max(local_version) FROM crmesh_parked"));
  for (const sql of catalog.overClocks((clock) => `SELECT max(db_version) AS l FROM ${clock}`)) {
    newest = Math.max(newest, numberOf(db.get(`SELECT max(l) FROM (${sql})`)));
  }
  return newest;
}

/** Names of the CRRs with rows above local version `l`. */
export function tablesAbove(db: Database, catalog: Catalog, l: number): string[] {
  const arms = catalog.overClocks((clock, table) => {
    const i = catalog.tables.indexOf(table);
    return `SELECT ${i} AS i WHERE EXISTS (SELECT 1 FROM ${clock} WHERE db_version > ?1)`;
  });
  return arms.flatMap((sql) => db.all(sql, BigInt(l))).map(([i]) => catalog.tables[Number(i)]?.name ?? "");
}

export function readVector(db: Database): Vector {
  return readSites(db, "SELECT site, version FROM crmesh_vector");
}

export function readResume(db: Database): Vector {
  return readSites(db, "SELECT site, reached FROM crmesh_resume");
}

/** Raises the stored claims to `claims`; none is lowered. */
export function raiseVector(db: Database, claims: Vector): void {
  const sql = `INSERT INTO crmesh_vector VALUES (?, ?)
    ON CONFLICT (site) DO UPDATE SET version = max(version, excluded.version)`;
  for (const [site, version] of claims) db.run(sql, fromHex(site), BigInt(version));
}

export function storeResume(db: Database, resume: Vector): void {
  const sql = "INSERT OR REPLACE INTO crmesh_resume VALUES (?, ?)";
  for (const [site, reached] of resume) db.run(sql, fromHex(site), BigInt(reached));
}

/** Records that local version `l` holds what `site` wrote at `version`. */
export function logEntry(db: Database, l: number, site: SiteID, version: number): void {
  db.run("INSERT INTO crmesh_log VALUES (?, ?, ?)", BigInt(l), fromHex(site), BigInt(version));
}

/** Where local version `l` comes from; `self` for an entry that is not in the log. */
export function originOf(db: Database, l: number, self: SiteID): { origin: SiteID; version: number } {
  const row = db.get("SELECT site, origin_version FROM crmesh_log WHERE local_version = ?", BigInt(l));
  if (row === undefined) return { origin: self, version: l };
  return { origin: toHex(row[0] as Uint8Array), version: Number(row[1]) };
}

function readSites(db: Database, sql: string): Vector {
  return new Map(db.all(sql).map(([site, n]) => [toHex(site as Uint8Array), Number(n)]));
}

function numberOf(row: SqlValue[] | undefined): number {
  return Number(row?.[0] ?? 0);
}
