import { describe, expect, test } from "vitest";
import { type Change, fromHex } from "../changeset/change.ts";
import type { TableSchema } from "../changeset/schema.ts";
import { integer, nullValue, textString } from "../changeset/value.ts";
import type { ApplyGroup } from "../syncproto/ops.ts";
import { DecideHold, DecideSend, DecideSkip, DecideStop, type Decision } from "../syncproto/ops.ts";
import { EntryEnd } from "../syncproto/vector.ts";
import { BIG_ENTRY } from "./read.ts";
import type { Database } from "./sqlite.ts";
import { SqliteStore, type Storage } from "./store.ts";
import {
  exec,
  memoryDatabase,
  memoryStore,
  readAll,
  readRequest,
  START,
  transfer,
  value,
} from "./testing/memory.ts";

const SCHEMA = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v, w); SELECT crsql_as_crr('t')";
const SITE = "07".repeat(16);
const KEY5 = Uint8Array.of(1, 9, 5);

function change(part: Partial<Change>): Change {
  return {
    table: "t",
    pk: KEY5,
    cid: "v",
    val: textString("x"),
    colVersion: 1n,
    dbVersion: 0,
    site: SITE,
    cl: 1n,
    seq: 0n,
    ...part,
  };
}

function group(version: number, ...changes: Change[]): ApplyGroup {
  return { link: 1, origin: SITE, version, changes };
}

async function apply(store: SqliteStore, ...groups: ApplyGroup[]) {
  return store.apply({ id: 1, groups, claims: new Map(), resume: new Map() });
}

const table = (name: string, sql: string) => ({ name, sql, columns: [] });

/** Offers tables to a store, of a schema that is none of its own. */
function take(store: SqliteStore, tables: readonly TableSchema[]): Promise<readonly string[]> {
  return store.takeSchema({ link: 1, hash: new Uint8Array(32).fill(1), generation: 0, tables }, "additive");
}

async function withTable() {
  const opened = await memoryStore();
  await exec(opened.store, SCHEMA);
  return opened;
}

describe("state", () => {
  test("a fresh database has nothing but a site", async () => {
    const { store } = await memoryStore();
    const state = await store.state();
    expect(fromHex(state.site).length).toBe(16);
    expect(state).toMatchObject({ own: 0, newest: 0, tables: [] });
    expect(state.schemaHash).toStrictEqual(new Uint8Array(32));
    expect(state.vector.size + state.resume.size).toBe(0);
  });

  test("own and newest follow local and foreign commits", async () => {
    const { store } = await withTable();
    await exec(store, "INSERT INTO t VALUES (1, 2, 3)");
    expect(await store.heads()).toMatchObject({ own: 1, newest: 1 });
    expect(await apply(store, group(70, change({})))).toMatchObject({
      ls: [2],
      changed: [1],
      own: 1,
      newest: 2,
    });
    expect(await store.heads()).toMatchObject({ own: 1, newest: 2 });
    await exec(store, "UPDATE t SET v = 9 WHERE id = 1");
    expect(await store.heads()).toMatchObject({ own: 3, newest: 3 });
  });

  test("claims only rise, resume is stored as it is", async () => {
    const { store } = await withTable();
    const [a, b] = ["0a".repeat(16), "0b".repeat(16)];
    const store1 = (claims: [string, number][], resume: [string, number][]) =>
      store.apply({ id: 1, groups: [], claims: new Map(claims), resume: new Map(resume) });
    await store1([[a, 5]], [[a, 9]]);
    await store1(
      [
        [a, 4],
        [b, 2 ** 52],
      ],
      [[a, 3]],
    );
    const { vector, resume } = await store.state();
    expect([...vector]).toStrictEqual([
      [a, 5],
      [b, 2 ** 52],
    ]);
    expect([...resume]).toStrictEqual([[a, 3]]);
  });

  test("the schema hash is that of docs/PROTOCOL.md", async () => {
    const { store } = await memoryStore();
    await exec(
      store,
      "CREATE TABLE b (k TEXT, j Integer NOT NULL, v ANY DEFAULT (1 + 1), PRIMARY KEY (j, k)); SELECT 1",
    ).catch(() => {});
    await exec(
      store,
      `CREATE TABLE a (id PRIMARY KEY NOT NULL);
       CREATE TABLE "ä" (k TEXT NOT NULL, j Integer NOT NULL, v real DEFAULT (1 + 1), PRIMARY KEY (j, k));
       SELECT crsql_as_crr('ä'); SELECT crsql_as_crr('a')`,
    );
    const text =
      "a\0id\0\x001\0\x001\0\nä\0j\0INTEGER\x001\0\x001\0k\0TEXT\x001\0\x002\0v\0REAL\x000\x001 + 1\x000\0\n";
    const want = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
    expect((await store.heads()).schemaHash).toStrictEqual(want);
  });
});

describe("exec", () => {
  test("reports rows and tables, and does the same request once", async () => {
    const { store, db } = await withTable();
    const insert = () =>
      store.exec("r1", "INSERT INTO t VALUES (?, 'a;b', 2), (2, NULL, ?)", [integer(1), nullValue()]);
    expect(await insert()).toStrictEqual({ changes: 2, tables: ["t"] });
    expect(await insert()).toStrictEqual({ changes: 2, tables: [] });
    expect(db.all("SELECT count(*) FROM t")).toStrictEqual([[2n]]);
  });

  test("several statements share the arguments in order", async () => {
    const { store, db } = await withTable();
    const sql = "INSERT INTO t VALUES (?, ?, 0); SELECT 1; UPDATE t SET w = ? /* ; */; -- end";
    expect((await store.exec("r", sql, [1n, "x", 2].map(value))).changes).toBe(2);
    expect(db.all("SELECT * FROM t")).toStrictEqual([[1n, "x", 2]]);
  });

  test.each([
    [
      "an error in a later statement",
      "INSERT INTO t VALUES (1, 1, 1); INSERT INTO nope VALUES (1)",
      "no such table",
    ],
    ["COMMIT", "INSERT INTO t VALUES (1, 1, 1); /* */ COMMIT; SELECT 1", "COMMIT cannot be used"],
    [
      "a rollback by a conflict",
      "INSERT INTO t VALUES (1, 1, 1); INSERT OR ROLLBACK INTO t VALUES (1, 1, 1)",
      "UNIQUE",
    ],
    ["too few arguments", "INSERT INTO t VALUES (1, 1, ?)", "take 1 arguments or more, 0 given"],
    ["nothing", " -- only a comment", "no statement"],
  ])("%s leaves nothing and the store usable", async (_, sql, message) => {
    const { store, db } = await withTable();
    await expect(store.exec("r", sql, [])).rejects.toThrow(message);
    expect(db.all("SELECT count(*) FROM t")).toStrictEqual([[0n]]);
    expect((await store.exec("r", "INSERT INTO t VALUES (2, 2, 2)", [])).changes).toBe(1);
    expect(await store.heads()).toMatchObject({ own: 1, newest: 1 });
  });
});

describe("query", () => {
  test("returns names and typed rows", async () => {
    const { store } = await withTable();
    await exec(store, "INSERT INTO t VALUES (9007199254740993, 2.0, x'')");
    const result = await store.query("SELECT *, ? AS p FROM t", [value("é\0")]);
    expect(result.columns).toStrictEqual(["id", "v", "w", "p"]);
    expect(result.rows).toStrictEqual([[2n ** 53n + 1n, 2, new Uint8Array(0), "é\0"].map(value)]);
  });

  test.each([
    "INSERT INTO t VALUES (1, 1, 1)",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 1, 1",
    "SELECT 1; SELECT 2",
  ])("%s is refused and does nothing", async (sql) => {
    const { store, db } = await withTable();
    await expect(store.query(sql, [])).rejects.toThrow(/use exec|one statement/);
    expect(db.all("SELECT count(*) FROM t")).toStrictEqual([[0n]]);
    await exec(store, "INSERT INTO t VALUES (1, 1, 1)");
  });
});

describe("read", () => {
  test("walks entries with their origin, and continues behind a position", async () => {
    const { store } = await withTable();
    await exec(store, "INSERT INTO t VALUES (1, 'a', 'b')");
    await apply(store, group(70, change({ seq: 4n }), change({ cid: "w", seq: 9n })));
    const { site } = await store.state();
    const { entries, next } = await readAll(store, START);
    expect(
      entries.map(({ l, origin, version, changes }) => [l, origin, version, changes.length]),
    ).toStrictEqual([
      [1, site, 1, 2],
      [2, SITE, 70, 2],
    ]);
    expect(entries[1]?.changes.map((c) => [c.cid, c.seq, c.site])).toStrictEqual([
      ["v", 4n, SITE],
      ["w", 9n, SITE],
    ]);
    expect(next).toStrictEqual({ l: 2, seq: EntryEnd });
    const rest = await store.read(readRequest({ l: 2, seq: 4n }, { count: true }));
    expect(rest.entries.map((e) => e.changes.map((c) => c.cid))).toStrictEqual([["w"]]);
    expect(rest.remaining).toBe(1);
    expect((await store.read(readRequest({ l: 2, seq: EntryEnd }, { count: true }))).remaining).toBe(0);
  });

  test("decisions: skip, hold, stop; and only those asked for", async () => {
    const { store } = await withTable();
    for (let i = 1; i <= 5; i++) await exec(store, `INSERT INTO t VALUES (${i}, 1, 1)`);
    const decisions: Decision[] = [DecideSend, DecideSkip, DecideHold, DecideSend, DecideStop];
    const decide = (_: string, v: number) => decisions[v - 1] as Decision;
    const result = await store.read(readRequest(START, { decide }));
    expect(result.entries.map((e) => [e.l, e.held, e.changes.length])).toStrictEqual([
      [1, false, 2],
      [3, true, 0],
      [4, false, 2],
    ]);
    expect(result).toMatchObject({ end: false, next: { l: 4, seq: EntryEnd }, own: 5, newest: 5 });
    const only = await store.read(readRequest({ l: 1, seq: EntryEnd }, { only: [1, 3, 5, 77] }));
    expect(only.entries.map((e) => e.l)).toStrictEqual([3, 5]);
    expect(only.end).toBe(true);
  });

  test("an entry of any size is read in pieces that never split a run of equal seq", async () => {
    const { store, db } = await withTable();
    const rows = BIG_ENTRY;
    await exec(
      store,
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
      INSERT INTO t SELECT i, i, 'w' || i FROM n`,
    );
    const { entries, reads } = await readAll(store, START, { maxChanges: 1000 });
    const changes = entries.flatMap((e) => e.changes);
    expect(reads).toBeGreaterThan(16);
    expect(Math.max(...entries.map((e) => e.changes.length))).toBe(1000);
    expect(changes.map((c) => c.seq)).toStrictEqual(Array.from({ length: rows * 2 }, (_, i) => BigInt(i)));
    expect(db.all("SELECT name FROM sqlite_master WHERE name LIKE 'crmesh_seq%'")).toStrictEqual([
      ["crmesh_seq_t"],
    ]);

    const many = Array.from({ length: 6 }, (_, i) =>
      change({ pk: Uint8Array.of(1, 9, 100 + i), colVersion: 9n, seq: BigInt(i >> 1) }),
    );
    const { ls } = await apply(store, group(1, ...many));
    const pieces = await readAll(store, { l: (ls[0] ?? 0) - 1, seq: EntryEnd }, { maxChanges: 3 });
    expect(pieces.entries.map((e) => e.changes.length)).toStrictEqual([2, 2, 2]);
    const bytes = await readAll(store, { l: (ls[0] ?? 0) - 1, seq: EntryEnd }, { maxBytes: 1 });
    expect(bytes.entries.map((e) => e.changes.length)).toStrictEqual([2, 2, 2]);
  });

  test("an entry with a new key carries the columns that moved there", async () => {
    const [a, b] = [await withTable(), await withTable()];
    await exec(a.store, "INSERT INTO t VALUES (1, 'one', 1.0)");
    const after = await transfer(a.store, b.store);
    await exec(a.store, "UPDATE t SET id = 2");
    await transfer(a.store, b.store, after);
    expect(b.db.all("SELECT * FROM t")).toStrictEqual([[2n, "one", 1]]);
  });
});

describe("apply", () => {
  test("what has no effect takes no local version and leaves no log row", async () => {
    const { store, db } = await withTable();
    const g = group(7, change({}));
    expect((await apply(store, g)).ls).toStrictEqual([1]);
    expect(await apply(store, g, group(8, change({ cid: "w" })))).toMatchObject({
      ls: [0, 2],
      changed: [0, 1],
    });
    expect(db.all("SELECT local_version, origin_version FROM crmesh_log")).toStrictEqual([
      [1n, 7n],
      [2n, 8n],
    ]);
  });

  test("bad rows are parked, the others go on, and local writes are still tracked", async () => {
    const { store, db } = await memoryStore();
    await exec(
      store,
      "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v, w CHECK (w < 10)); SELECT crsql_as_crr('t')",
    );
    const bad = [
      change({ table: "nope" }),
      change({ cid: "nope", seq: 1n }),
      change({ pk: new Uint8Array(0), seq: 2n }),
      change({ pk: Uint8Array.of(1, 5), seq: 3n }),
      change({ pk: Uint8Array.of(2, 9, 5), seq: 4n }),
      change({ pk: Uint8Array.of(2, 9, 5, 9, 5), seq: 5n }),
      change({ cid: "w", val: integer(50), seq: 6n }),
    ];
    const first = await apply(store, group(7, ...bad.slice(0, 6), change({}), ...bad.slice(6)));
    expect(first).toMatchObject({ ls: [1], changed: [1], parked: [7] });
    await exec(store, "INSERT INTO t VALUES (1, 'local', 1)");
    expect(db.all("SELECT cid FROM crsql_changes WHERE db_version = 2")).toStrictEqual([["v"], ["w"]]);
    expect(await apply(store, group(7, ...bad))).toMatchObject({ ls: [0], parked: [7] });
    const { entries } = await readAll(store, START);
    expect(entries.map((e) => [e.l, e.version, e.changes.length])).toStrictEqual([
      [1, 7, 8],
      [2, 2, 2],
    ]);
    const reasons = db.all("SELECT reason FROM crmesh_parked ORDER BY seq").map(([reason]) => reason);
    expect(reasons).toStrictEqual([
      "there is no such table here",
      'the table has no column "nope"',
      expect.stringContaining("bad key"),
      "bad key: NULL in it",
      expect.stringContaining("bad key"),
      "bad key: 2 values for 1 key columns",
      "constraint failed",
    ]);
  });

  test("parked rows apply after the table was created, under their origin", async () => {
    const [a, b, c] = [await withTable(), await memoryStore(), await withTable()];
    await exec(a.store, "INSERT INTO t VALUES (1, 'one', 1.0)");
    await transfer(a.store, b.store);
    expect(await b.store.heads()).toMatchObject({ own: 0, newest: 1 });
    await transfer(b.store, c.store);
    expect(c.db.all("SELECT * FROM t")).toStrictEqual([[1n, "one", 1]]);
    await take(b.store, await a.store.schema());
    await b.store.replay();
    expect(b.db.all("SELECT * FROM t")).toStrictEqual([[1n, "one", 1]]);
    expect(b.db.all("SELECT count(*) FROM crmesh_parked")).toStrictEqual([[0n]]);
    const { site } = await a.store.state();
    const { entries } = await readAll(b.store, START);
    expect(entries.map((e) => [e.l, e.origin, e.version])).toStrictEqual([[2, site, 1]]);
    await exec(b.store, "UPDATE t SET v = 'two'");
    expect(await b.store.heads()).toMatchObject({ own: 3, newest: 3 });
  });

  test("a table that syncs is not dropped, unless its sync was ended, or another takes its place", async () => {
    const { store } = await withTable();
    await exec(store, "INSERT INTO t VALUES (1, 1, 1)");
    for (const sql of ["DROP TABLE t", "INSERT INTO t VALUES (2, 2, 2); ALTER TABLE t RENAME TO other"]) {
      await expect(exec(store, sql)).rejects.toThrow('the table "t" syncs');
    }
    expect((await store.query("SELECT v FROM t", [])).rows.length).toBe(1);
    await exec(store, "CREATE TABLE plain (a)");
    await exec(store, "DROP TABLE plain");
    await exec(store, "SELECT crsql_as_table('t'); DROP TABLE t");
    expect(await store.schema()).toStrictEqual([]);
  });

  test("a local write gets a number above all that were given out, also when their rows are gone", async () => {
    const { store, db } = await withTable();
    await exec(store, "CREATE TABLE gone (id PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('gone')");
    const rows = Array.from({ length: 3 }, (_, i) =>
      group(i + 1, change({ table: "gone", seq: BigInt(i), colVersion: BigInt(i + 1) })),
    );
    expect((await apply(store, ...rows)).ls).toStrictEqual([1, 2, 3]);
    db.script("DROP TABLE gone; DROP TABLE gone__crsql_clock; DROP TABLE gone__crsql_pks");
    const again = await reopened(db);
    expect(again.db.get("SELECT crsql_db_version()")).toStrictEqual([0n]);
    await exec(again.store, "INSERT INTO t VALUES (1, 1, 1)");
    expect(await again.store.heads()).toMatchObject({ own: 4, newest: 4 });
  });
});

/** A store in a new process, so to speak, on the same content: cr-sqlite remembers nothing of the session before. */
async function reopened(db: Database): Promise<{ store: SqliteStore; db: Database }> {
  const copy = await memoryDatabase();
  copy.script(SCHEMA);
  const none: Storage = { sync: async () => {}, close: async () => {} };
  const store = new SqliteStore(() => copy, none);
  for (const table of ["crmesh_log", "crmesh_meta"]) {
    copy.script(`DELETE FROM ${table}`);
    for (const row of db.all(`SELECT * FROM ${table}`)) {
      copy.run(`INSERT INTO ${table} VALUES (${row.map(() => "?").join(", ")})`, ...row);
    }
  }
  void store;
  return { store: new SqliteStore(() => copy, none), db: copy };
}

describe("versions at the bound", () => {
  const MAX = BigInt(Number.MAX_SAFE_INTEGER);

  test("a change beyond it is parked, and the one beside it goes on", async () => {
    const { store, db } = await withTable();
    const parts: Partial<Change>[] = [
      { colVersion: MAX + 1n },
      { colVersion: 2n ** 63n - 1n },
      { colVersion: -1n },
      { cl: MAX + 2n },
      { seq: MAX + 1n },
      { seq: -1n },
    ];
    const beyond = parts.map((part, i) => change({ pk: Uint8Array.of(1, 9, 10 + i), ...part }));
    const outcome = await apply(store, group(7, ...beyond, change({ colVersion: MAX })));
    expect(outcome).toMatchObject({ ls: [1], changed: [1], parked: [6] });
    expect(db.all("SELECT id, v FROM t")).toStrictEqual([[5n, "x"]]);
    expect(db.all("SELECT DISTINCT reason FROM crmesh_parked ORDER BY 1").flat()).toStrictEqual([
      "seq out of range",
      "version out of range",
    ]);
  });

  test("a local write to a pinned cell fails whole, and to its row once it is made anew does not", async () => {
    const { store, db } = await withTable();
    await apply(store, group(7, change({ colVersion: MAX - 1n }), change({ cid: "w" })));
    await exec(store, "UPDATE t SET v = 'the last one'");
    const pinned =
      'table "t", key (5): column "v" is pinned: its version is the highest that peers accept, 9007199254740991, ' +
      "so that none of them would take this write; delete the row and insert it again";
    for (const sql of [
      "UPDATE t SET v = 1",
      "INSERT INTO t VALUES (9, 9, 9); INSERT OR REPLACE INTO t VALUES (5, 1, 1)",
    ]) {
      await expect(store.exec(sql, sql, [])).rejects.toThrow(pinned);
      expect(db.all("SELECT * FROM t")).toStrictEqual([[5n, "the last one", "x"]]);
    }
    await exec(store, "UPDATE t SET w = 'goes on'");
    await exec(store, "DELETE FROM t");
    await exec(store, "INSERT INTO t VALUES (5, 'free', 1)");
    await exec(store, "UPDATE t SET v = 'again'");
    expect(db.all("SELECT v, w FROM t")).toStrictEqual([["again", 1n]]);
    expect(await store.heads()).toMatchObject({ own: 6, newest: 6 });
  });

  test("a row at the highest causal length stays", async () => {
    const { store, db } = await withTable();
    await apply(store, group(7, change({ cid: "-1", val: nullValue(), colVersion: MAX, cl: MAX })));
    await expect(store.exec("r", "DELETE FROM t", [])).rejects.toThrow("key (5): the row is pinned");
    expect(db.all("SELECT id FROM t")).toStrictEqual([[5n]]);
    await exec(store, "UPDATE t SET v = 'goes on'");
  });
});

describe("takeSchema", () => {
  test("creates what is missing as CRRs and leaves the rest", async () => {
    const { store } = await withTable();
    const sql = 'CREATE TABLE "größe" (k TEXT PRIMARY KEY NOT NULL, v)';
    expect(await take(store, [table("t", "anything"), table("größe", sql)])).toStrictEqual([]);
    expect((await store.schema()).map((t) => t.name)).toStrictEqual(["größe", "t"]);
    await exec(store, "INSERT INTO \"größe\" VALUES ('a', 1)");
    expect((await store.heads()).own).toBe(1);
  });

  test.each([
    ["a tail", "CREATE TABLE x (k PRIMARY KEY NOT NULL); DROP TABLE t"],
    ["another statement", "DROP TABLE t"],
    ["another name", "CREATE TABLE y (k PRIMARY KEY NOT NULL)"],
    ["a copy of data", "CREATE TABLE x AS SELECT * FROM t"],
    ["a view", "CREATE VIEW x (k) AS SELECT 1"],
    ["a table in another schema", "CREATE TABLE temp.x (k PRIMARY KEY NOT NULL)"],
    ["what cannot be a CRR", "CREATE TABLE x (k)"],
    [
      "a function of cr-sqlite",
      "CREATE TABLE x (k PRIMARY KEY NOT NULL, v DEFAULT (crsql_internal_sync_bit(1)))",
    ],
  ])("%s is refused whole", async (_, sql) => {
    const { store, db } = await withTable();
    const good = table("good", "CREATE TABLE good (k PRIMARY KEY NOT NULL)");
    expect(await take(store, [table("x", sql), good])).toStrictEqual([expect.stringContaining("table x")]);
    expect((await store.schema()).map((t) => t.name)).toStrictEqual(["good", "t"]);
    expect(db.all("SELECT name FROM sqlite_master WHERE name IN ('x', 'y')")).toStrictEqual([]);
    await exec(store, "INSERT INTO t VALUES (1, 1, 1)");
  });
});

test("a table name that stock cr-sqlite cannot track is refused in clear words", async () => {
  const { store } = await memoryStore();
  const refused = await take(store, [table("a b", 'CREATE TABLE "a b" (k PRIMARY KEY NOT NULL)')]);
  expect(refused).toStrictEqual([expect.stringContaining("only letters, digits and _")]);
});

test("operations wait for the one before to be durable, and a failed sync ends the store", async () => {
  const events: string[] = [];
  let release: () => void = () => {};
  let fail = false;
  const storage: Storage = {
    sync: async () => {
      if (fail) throw new Error("disk on fire");
      events.push("sync");
      await new Promise<void>((resolve) => {
        release = resolve;
      });
    },
    close: async () => {},
  };
  const db = await memoryDatabase();
  const store = new SqliteStore(() => db, storage);
  const first = store.exec("1", SCHEMA, []).then(() => events.push("first"));
  const second = store.query("SELECT 1", []).then(() => events.push("second"));
  while (events.length < 1) await Promise.resolve();
  expect(events).toStrictEqual(["sync"]);
  release();
  await first;
  while (events.length < 3) await Promise.resolve();
  expect(events).toStrictEqual(["sync", "first", "sync"]);
  release();
  await second;
  fail = true;
  await expect(store.exec("2", "INSERT INTO t VALUES (1, 1, 1)", [])).rejects.toThrow("disk on fire");
  fail = false;
  await expect(store.query("SELECT * FROM t", [])).rejects.toThrow("reload the page");
});
