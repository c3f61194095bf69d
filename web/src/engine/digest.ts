// What the database holds, as digests, and rows that are to be sent again.

import { type Change, SentinelCID, toHex } from "../changeset/change.ts";
import {
  columnsDigest,
  DigestTree,
  depthFor,
  type Part,
  PartScan,
  type Place,
  placeOf,
  RowHasher,
  type RowSum,
  type TableDigest,
} from "../changeset/digest.ts";
import { pack } from "../changeset/pack.ts";
import { compareText, nullValue, type Value } from "../changeset/value.ts";
import {
  type DigestContent,
  DigestNoTable,
  DigestParts,
  type DigestRequest,
  DigestTables,
  MaxDigestTables,
} from "../syncproto/digest.ts";
import type { Entry } from "../syncproto/ops.ts";
import type { SiteID, Vector } from "../syncproto/vector.ts";
import { originOf } from "./log.ts";
import { type Catalog, clockOf, type Table } from "./schema.ts";
import { type Database, quoteIdentifier, type Statement } from "./sqlite.ts";
import { columnValue } from "./values.ts";

/** The digest of a table as it was at a version. */
interface TableTree {
  readonly of: Table;
  readonly newest: bigint; // highest local version of the table's clocks
  readonly tree: DigestTree;
}

/**
 * Computes digests of rows. For tables as a whole it reads every row of them, so that what it says is what the database holds
 * now, however it came there. Parts of a table are answered from what that left behind, as far as it goes and while no change
 * has come since, and otherwise by reading keys and the rows of the parts.
 */
export class Digester {
  readonly #db: Database;
  readonly #trees = new Map<string, TableTree>();

  constructor(db: Database) {
    this.#db = db;
  }

  /** Answers `q` from what the database holds now. */
  answer(catalog: Catalog, vector: Vector, q: DigestRequest): DigestContent {
    if (q.prefixes.length > 0) {
      const table = catalog.byName.get(q.table);
      if (!table) return { kind: DigestNoTable, vector, tables: [], parts: [] };
      return { kind: DigestParts, vector, tables: [], parts: this.#parts(table, q.prefixes) };
    }
    for (const name of this.#trees.keys()) if (!catalog.byName.has(name)) this.#trees.delete(name);
    const wanted = catalog.tables.filter((t) => q.table === "" || t.name === q.table);
    const tables = wanted.slice(0, MaxDigestTables).map((t) => this.#table(t));
    return { kind: DigestTables, vector, tables, parts: [] };
  }

  #table(table: Table): TableDigest {
    const newest = this.#newest(table);
    const tree = new DigestTree(this.#keyCount(table));
    const reader = new RowReader(table);
    let alive = 0;
    each(this.#db.prepare(rowSQL(table, "")), [], (s) => {
      const row = reader.row(s);
      if (!row) return;
      tree.add(row.place, row.digest);
      if (row.there && row.cl % 2n !== 0n) alive++;
    });
    this.#trees.set(table.name, { of: table, newest, tree });
    const rows = numberOf(this.#db, `SELECT count(*) FROM ${quoteIdentifier(table.name)}`);
    return {
      table: table.name,
      columns: columnsDigest(table.keys, reader.order),
      sum: tree.total(),
      stray: Math.max(rows - alive, 0),
    };
  }

  #parts(table: Table, prefixes: readonly string[]): Part[] {
    const depth = depthFor(this.#keyCount(table));
    let tree = this.#treeOf(table);
    if (!tree && prefixes.some((p) => p.length < depth)) {
      this.#table(table);
      tree = this.#treeOf(table);
    }
    const known = prefixes.map((p) => tree?.children(p));
    const listed = prefixes.filter((_, i) => known[i] === undefined);
    if (listed.length === 0) return known.map((children) => ({ children: children ?? [] }));
    const scan = new PartScan(listed);
    const reader = new RowReader(table);
    const one = this.#db.prepare(rowSQL(table, " WHERE k.__crsql_key = ?"));
    for (const key of keysOf(this.#db, table, (place) => scan.wants(place))) {
      each(one, [key], (s) => {
        const row = reader.row(s);
        if (row) scan.add(row);
      });
    }
    const parts = scan.parts();
    return known.map((children) => (children ? { children } : (parts.shift() as Part)));
  }

  #treeOf(table: Table): DigestTree | undefined {
    const known = this.#trees.get(table.name);
    return known?.of === table && known.newest === this.#newest(table) ? known.tree : undefined;
  }

  #newest(table: Table): bigint {
    return BigInt(numberOf(this.#db, `SELECT max(db_version) FROM ${clockOf(table)}`));
  }

  #keyCount(table: Table): number {
    return numberOf(this.#db, `SELECT count(*) FROM ${pksOf(table)}`);
  }
}

/**
 * All that is known of the rows at `places`, as entries in ascending order: about `maxBytes` of it, and one row at least.
 * Rows that do not exist are left out.
 */
export function readRows(
  db: Database,
  catalog: Catalog,
  self: SiteID,
  name: string,
  places: readonly Place[],
  maxBytes: number,
): Entry[] {
  const table = catalog.byName.get(name);
  if (!table) return [];
  const wanted = new Set(places);
  const byVersion = new Map<number, Change[]>();
  let size = 0;
  for (const key of keysOf(db, table, (place) => wanted.has(place))) {
    for (const change of changesOf(db, table, key)) {
      const changes = byVersion.get(change.dbVersion);
      if (changes) changes.push(change);
      else byVersion.set(change.dbVersion, [change]);
      size += change.pk.length + ("bytes" in change.val ? change.val.bytes.length : 8);
    }
    if (size >= maxBytes) break;
  }
  return [...byVersion]
    .sort(([a], [b]) => a - b)
    .map(([l, changes]) => ({ l, ...originOf(db, l, self), changes, held: false }));
}

// All changes of the row with the short key, the sentinel first.
function changesOf(db: Database, table: Table, key: bigint): Change[] {
  const reader = new RowReader(table);
  let pk: Uint8Array = new Uint8Array(0);
  const values = new Map<string, Value>();
  each(db.prepare(rowSQL(table, " WHERE k.__crsql_key = ?")), [key], (s) => {
    pk = reader.key(s, 2);
    reader.cells.forEach((cid, i) => {
      values.set(cid, columnValue(s, 2 + table.keys.length + i));
    });
  });
  const changes: Change[] = [];
  const clocks = db.prepare(
    `SELECT c.col_name, c.col_version, s.site_id, c.seq, c.db_version FROM ${clockOf(table)} c
       LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id WHERE c.key = ? ORDER BY c.col_name <> '-1', c.seq`,
  );
  let cl = 1n;
  each(clocks, [key], (s) => {
    const cid = s.columnText(0);
    const colVersion = s.columnInteger(1);
    if (cid === SentinelCID)
      cl = colVersion; // it comes first
    else if (!table.cells.has(cid)) return;
    const val = values.get(cid) ?? nullValue();
    const site = toHex(s.columnBytes(2));
    const dbVersion = Number(s.columnInteger(4));
    changes.push({
      table: table.name,
      pk,
      cid,
      val,
      colVersion,
      dbVersion,
      site,
      cl,
      seq: s.columnInteger(3),
    });
  });
  return changes;
}

// The short keys of the rows whose place is wanted. It has read all keys before the first one is used.
function keysOf(db: Database, table: Table, wants: (place: Place) => boolean): bigint[] {
  const reader = new RowReader(table);
  const found: bigint[] = [];
  const columns = table.keys.map((name) => `k.${quoteIdentifier(name)}`).join(", ");
  each(db.prepare(`SELECT k.__crsql_key, ${columns} FROM ${pksOf(table)} k`), [], (s) => {
    if (wants(placeOf(reader.key(s, 1)))) found.push(s.columnInteger(0));
  });
  return found;
}

// Rows as digests see them: all clocks as one text, whether the table itself holds the row, the key, and the values. It goes by
// the keys, not by the table: so deleted rows are there, too.
function rowSQL(table: Table, where: string): string {
  const first = quoteIdentifier(table.keys[0] ?? "");
  const columns = [
    `(SELECT group_concat(col_version || ' ' || col_name, char(0)) FROM ${clockOf(table)} WHERE key = k.__crsql_key)`,
    `t.${first} IS NOT NULL`,
    ...table.keys.map((name) => `k.${quoteIdentifier(name)}`),
    ...[...table.cells].map((name) => `t.${quoteIdentifier(name)}`),
  ];
  // The plus takes the affinity off a column without a type: then it is compared as a parameter is.
  const on = table.keys.map((name) => `t.${quoteIdentifier(name)} IS +k.${quoteIdentifier(name)}`);
  return `SELECT ${columns.join(", ")} FROM ${pksOf(table)} k LEFT JOIN ${quoteIdentifier(table.name)} t ON ${on.join(" AND ")}${where}`;
}

function pksOf(table: Table): string {
  return quoteIdentifier(`${table.name}__crsql_pks`);
}

/** Makes digests of the rows of one table. */
class RowReader {
  readonly #table: Table;
  /** The table's cells, in the order of its columns. */
  readonly cells: readonly string[];
  /** And in bytewise order. */
  readonly order: readonly string[];
  readonly #index: ReadonlyMap<string, number>;
  readonly #hasher = new RowHasher();

  constructor(table: Table) {
    this.#table = table;
    this.cells = [...table.cells];
    this.order = [...table.cells].sort(compareText);
    this.#index = new Map(this.cells.map((name, i) => [name, i]));
  }

  /** The packed key of the current row, whose columns begin at `at`. */
  key(s: Statement, at: number): Uint8Array {
    return pack(this.#table.keys.map((_, i) => columnValue(s, at + i)));
  }

  /** The digest of the current row of rowSQL; undefined for a key without clocks, which sync does not know of. */
  row(s: Statement): (RowSum & { readonly there: boolean }) | undefined {
    const clocks = s.columnText(0);
    if (clocks === "") return undefined;
    const versions = new Map<string, bigint>();
    let cl = 1n;
    for (const clock of clocks.split("\0")) {
      const at = clock.indexOf(" ");
      const version = BigInt(clock.slice(0, at));
      const name = clock.slice(at + 1);
      if (name === SentinelCID) cl = version;
      else versions.set(name, version);
    }
    const there = s.columnInteger(1) !== 0n;
    const key = this.key(s, 2);
    this.#hasher.begin(this.#table.name, key, cl, there);
    let sum = 0n;
    if (cl % 2n !== 0n) {
      for (const cid of this.order) {
        const version = versions.get(cid);
        if (version === undefined) continue;
        const column = 2 + this.#table.keys.length + (this.#index.get(cid) as number);
        this.#hasher.cell(cid, version, columnValue(s, column));
        sum += version;
      }
    }
    const digest = this.#hasher.sum();
    return { place: placeOf(key), key, cl, versions: BigInt.asIntN(64, sum), digest, there };
  }
}

function each(s: Statement, args: readonly bigint[], row: (s: Statement) => void): void {
  try {
    s.bindAll(args);
    while (s.step()) row(s);
  } finally {
    s.reset();
  }
}

function numberOf(db: Database, sql: string): number {
  return Number(db.get(sql)?.[0] ?? 0);
}
