import { expect, test } from "vitest";
import { addSums, MaxPartRows, noRows, type RowSum, type TableDigest } from "../changeset/digest.ts";
import { DigestNoTable, type DigestRequest, MaxDigestParts } from "../syncproto/digest.ts";
import { TypeDigestRequest } from "../syncproto/message.ts";
import type { Database } from "./sqlite.ts";
import type { SqliteStore } from "./store.ts";
import { exec, memoryStore, transfer } from "./testing/memory.ts";

const SCHEMA = `CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v, w); SELECT crsql_as_crr('t');
  CREATE TABLE p (a TEXT NOT NULL, b BLOB NOT NULL, c, PRIMARY KEY (a, b)); SELECT crsql_as_crr('p');
  CREATE TABLE k (x TEXT PRIMARY KEY NOT NULL); SELECT crsql_as_crr('k')`;

async function opened(): Promise<{ store: SqliteStore; db: Database }> {
  const o = await memoryStore();
  await exec(o.store, SCHEMA);
  return o;
}

function request(table = "", prefixes: string[] = []): DigestRequest {
  return { type: TypeDigestRequest, id: 1, table, prefixes };
}

async function tables(store: SqliteStore): Promise<readonly TableDigest[]> {
  return (await store.digest(request())).tables;
}

async function tableT(store: SqliteStore): Promise<TableDigest> {
  return (await store.digest(request("t"))).tables[0] as TableDigest;
}

/** All rows of a table by the way that a comparison takes: from the whole down to the rows. */
async function rowSums(store: SqliteStore, table: string): Promise<RowSum[]> {
  const out: RowSum[] = [];
  for (let work = [""]; work.length > 0; ) {
    const asked = work.splice(0, MaxDigestParts);
    const { parts } = await store.digest(request(table, asked));
    expect(parts.length).toBe(asked.length);
    parts.forEach((part, i) => {
      if ("rows" in part) {
        out.push(...part.rows);
        expect(part.rows.length).toBeLessThanOrEqual(MaxPartRows);
      } else {
        part.children.forEach((child, n) => {
          if (child.count > 0) work.push(`${asked[i]}${n.toString(16)}`);
        });
      }
    });
  }
  return out;
}

test("stores that hold the same by different ways have the same digests", async () => {
  const [a, b] = [await opened(), await opened()];
  await exec(a.store, "INSERT INTO t VALUES (1, 'x', NULL), (2, 2.5, x'00ff'), (3, 'Zürich', 1)");
  await exec(a.store, "DELETE FROM t WHERE id = 2");
  await exec(a.store, "UPDATE t SET v = 7 WHERE id = 3");
  await exec(a.store, "INSERT INTO p VALUES ('ä', x'01', -9007199254740993)");
  await exec(b.store, "INSERT INTO k VALUES ('only a key')");
  expect(await tables(a.store)).not.toEqual(await tables(b.store));
  await transfer(a.store, b.store);
  await transfer(b.store, a.store);
  expect(await tables(a.store)).toEqual(await tables(b.store));
  expect((await tables(a.store)).map((t) => [t.table, t.sum.count, t.stray])).toEqual([
    ["k", 1, 0],
    ["p", 1, 0],
    ["t", 3, 0],
  ]);
  expect((await a.store.digest(request("none", [""]))).kind).toBe(DigestNoTable);
});

test("whatever is changed past the engine shows", async () => {
  const { store, db } = await opened();
  await exec(store, "INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)");
  await exec(store, "DELETE FROM t WHERE id = 2");
  const before = await tableT(store);
  const past = (sql: string) => {
    db.run("SELECT crsql_internal_sync_bit(1)");
    db.run(sql);
    db.run("SELECT crsql_internal_sync_bit(0)");
  };
  for (const [damage, undo, stray] of [
    ["UPDATE t SET v = 'q' WHERE id = 1", "UPDATE t SET v = 'x' WHERE id = 1", 0],
    [
      "UPDATE t__crsql_clock SET col_version = 8 WHERE key = 1 AND col_name = 'w'",
      "UPDATE t__crsql_clock SET col_version = 1 WHERE key = 1 AND col_name = 'w'",
      0,
    ],
    ["DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (3, 'z', 3)", 0],
    ["INSERT INTO t VALUES (30, 'z', 3)", "DELETE FROM t WHERE id = 30", 1],
  ] as const) {
    past(damage);
    const got = await tableT(store);
    expect(got.stray, damage).toBe(stray);
    if (stray === 0) expect(got.sum, damage).not.toEqual(before.sum);
    past(undo);
    expect(await tableT(store), undo).toEqual(before);
  }
});

test("the parts of a table, down to its rows, add up to it, also when it changes in between", async () => {
  const { store } = await opened();
  const numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)";
  await exec(store, `${numbers} INSERT INTO t SELECT i, 'v' || i, NULL FROM n`);
  for (const change of ["", "UPDATE t SET w = 'new' WHERE id % 7 = 0; DELETE FROM t WHERE id % 11 = 0"]) {
    if (change !== "") await exec(store, change);
    const rows = await rowSums(store, "t");
    const sum = rows.reduce((s, r) => addSums(s, { count: 1, digest: r.digest }), noRows);
    expect(sum).toEqual((await tableT(store)).sum);
    expect(rows.length).toBe(1200);
  }
});

test("all that is known of rows, applied by another, makes that one's equal", async () => {
  const [a, b] = [await opened(), await opened()];
  await exec(a.store, "INSERT INTO t VALUES (1, 'x', NULL), (2, 2.5, x'00ff'), (3, 'Zürich', 1)");
  await exec(a.store, "UPDATE t SET v = 7 WHERE id = 3");
  await exec(a.store, "DELETE FROM t WHERE id = 2");
  await exec(a.store, "INSERT INTO t VALUES (2, 'again', 1)");
  await exec(a.store, "DELETE FROM t WHERE id = 1");
  const places = (await rowSums(a.store, "t")).map((r) => r.place);
  const entries = await a.store.rows("t", places, 1e6);
  const self = (await a.store.state()).site;
  expect(entries.map((e) => e.origin)).toEqual(entries.map(() => self));
  expect(entries.map((e) => e.l)).toEqual(entries.map((e) => e.l).toSorted((x, y) => x - y));
  const groups = entries.map(({ origin, version, changes }) => ({ link: 1, origin, version, changes }));
  await b.store.apply({ id: 1, groups, claims: new Map(), resume: new Map() });
  expect(await tableT(b.store)).toEqual(await tableT(a.store));
  expect((await a.store.rows("t", places, 1)).length).toBeLessThan(entries.length);
  expect(await a.store.rows("none", places, 1)).toEqual([]);
});
