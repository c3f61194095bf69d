// The quarantine: changes that could not be merged, kept to be passed on and tried again.

import { type Change, fromHex } from "../changeset/change.ts";
import { ChangeReader } from "./changes.ts";
import type { Database, Statement } from "./sqlite.ts";
import { bindValue } from "./values.ts";

/** The lowest seq there can be: where the changes of an entry begin. */
export const FIRST_SEQ = -(2n ** 63n);

/** A change and its row in crmesh_parked. */
export interface ParkedChange extends Change {
  readonly id: bigint;
}

/** The changes that are parked under `l`, from seq `first` on, in order of seq. */
export function* parkedChanges(db: Database, l: number, first: bigint): Generator<ParkedChange> {
  const reader = new ChangeReader();
  const statement = db.prepare(
    `SELECT tbl, pk, cid, val, col_version, site, cl, seq, id FROM crmesh_parked
     WHERE local_version = ? AND seq >= ? ORDER BY seq, id`,
  );
  try {
    statement.bindAll([BigInt(l), first]);
    while (statement.step()) {
      yield { ...reader.change(statement, l), id: statement.columnInteger(8) };
    }
  } finally {
    statement.reset();
  }
}

/** Puts a change aside under `l`; false if the very same one is there already. */
export function park(db: Database, l: number, change: Change, reason: string): boolean {
  const known = db.prepare(
    `SELECT 1 FROM crmesh_parked WHERE tbl = ?1 AND pk = ?2 AND cid = ?3 AND val IS ?4 AND typeof(val) = typeof(?4)
       AND col_version = ?5 AND site = ?6 AND cl = ?7 AND seq = ?8`,
  );
  bindParked(known, change);
  const there = known.step();
  known.reset();
  if (there) return false;
  const insert = db.prepare(
    `INSERT INTO crmesh_parked (tbl, pk, cid, val, col_version, site, cl, seq, local_version, reason)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  bindParked(insert, change);
  insert.bindInteger(9, BigInt(l));
  insert.bind(10, reason);
  insert.step();
  return true;
}

function bindParked(statement: Statement, change: Change): void {
  statement.bind(1, change.table);
  statement.bindBlob(2, change.pk);
  statement.bind(3, change.cid);
  bindValue(statement, 4, change.val);
  statement.bindInteger(5, change.colVersion);
  statement.bindBlob(6, fromHex(change.site));
  statement.bindInteger(7, change.cl);
  statement.bindInteger(8, change.seq);
}
