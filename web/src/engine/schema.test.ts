import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Change, toHex } from "../changeset/change.ts";
import { type Column, columnDefinition, schemaDifferences, type TableSchema } from "../changeset/schema.ts";
import { textString, type Value } from "../changeset/value.ts";
import { readTables, schemaHash } from "./schema.ts";
import type { Database } from "./sqlite.ts";
import { SqliteStore } from "./store.ts";
import { exec, memoryDatabase, memoryStore, START, transfer } from "./testing/memory.ts";

const vectors = new URL("../../../pkg/crsql/testdata/schemas.txt", import.meta.url);

test("schemas have Go's hashes, and differ as they do there", async () => {
  const schemas = new Map<string, TableSchema[]>();
  for (const block of readFileSync(vectors, "utf8").trim().split("\n\n")) {
    const [head = "", ...rest] = block.split("\n");
    const [kind, a = "", b = ""] = head.split(" ");
    if (kind === "schema") {
      const db = await memoryDatabase();
      db.script(rest.join("\n").replaceAll("\nCREATE", ";\nCREATE").replaceAll("\nSELECT", ";\nSELECT"));
      const tables = readTables(db);
      schemas.set(a, tables);
      expect(`${a} ${toHex(await schemaHash(tables))}`).toBe(`${a} ${b}`);
      db.close();
    } else if (kind === "differ") {
      expect([head, ...schemaDifferences(schemas.get(a) ?? [], schemas.get(b) ?? [])]).toEqual([
        head,
        ...rest,
      ]);
    }
  }
  expect(schemas.size).toBeGreaterThan(11);
});

test("a long list of differences is cut", () => {
  const columns = Array.from({ length: 70 }, (_, i): Column => ({ ...column, name: `c${i}` }));
  const list = schemaDifferences([{ name: "t", columns }], [{ name: "t", columns: [] }]);
  expect(list).toHaveLength(51);
  expect(list[50]).toBe("and 20 more");
});

const column: Column = { name: "c", type: "", notNull: false, defaultValue: undefined, key: 0 };
const noteSQL =
  "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title TEXT); SELECT crsql_as_crr('note')";
const other = new Uint8Array(32).fill(1);

function offer(...tables: TableSchema[]) {
  return { link: 1, hash: other, generation: 0, tables };
}

function noteAnd(...columns: Column[]): TableSchema {
  return { name: "note", sql: "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL)", columns };
}

describe("columns that are missing", () => {
  test("are added with their defaults, and nothing is told of it", async () => {
    const { store, db } = await memoryStore();
    await exec(store, noteSQL);
    await exec(store, "INSERT INTO note VALUES (1, 'one')");
    const before = await store.heads();
    const added: Column[] = [
      { ...column, name: "tags", type: "TEXT", defaultValue: "'none'" },
      { ...column, name: "n", type: "VARCHAR(10)", notNull: true, defaultValue: "-7" },
      { ...column, name: "größe" },
    ];
    expect(await store.takeSchema(offer(noteAnd(...added)), "additive")).toEqual([]);
    expect(db.all("SELECT * FROM note")).toEqual([[1n, "one", "none", "-7", null]]);
    expect((await store.schema())[0]?.columns.slice(2).map(columnDefinition)).toEqual(
      added.map(columnDefinition),
    );
    const { own, newest } = await store.heads();
    expect({ own, newest }).toEqual({ own: before.own, newest: before.newest });
    expect(db.all("SELECT count(*) FROM crsql_changes")).toEqual([[1n]]);
    await exec(store, "UPDATE note SET tags = 'red'");
    expect(db.all("SELECT cid FROM crsql_changes WHERE db_version = ?", BigInt(newest + 1))).toEqual([
      ["tags"],
    ]);
  });

  test("are no more than the engine can sync", async () => {
    const { store, db } = await memoryStore();
    await exec(store, noteSQL);
    const many = Array.from({ length: 62 }, (_, i): Column => ({ ...column, name: `c${i}` }));
    const refused = await store.takeSchema(offer(noteAnd(...many)), "additive");
    expect(refused).toEqual([expect.stringContaining("more than 63 columns")]);
    expect(await store.takeSchema(offer(noteAnd(...many.slice(1))), "additive")).toEqual([]);
    await exec(store, "INSERT INTO note (id, c9) VALUES (1, 2)");
    expect(db.all("SELECT cid, val FROM crsql_changes WHERE cid = 'c9'")).toEqual([["c9", 2n]]);
  });

  test("are left out where nothing is accepted", async () => {
    const { store } = await memoryStore();
    await exec(store, noteSQL);
    const tag = { name: "tag", sql: "CREATE TABLE tag (k PRIMARY KEY NOT NULL)", columns: [] };
    expect(await store.takeSchema(offer(noteAnd(column), tag), "never")).toEqual([]);
    expect((await store.schema()).map((t) => [t.name, t.columns.length])).toEqual([["note", 2]]);
  });

  test.each<[string, Partial<Column>]>([
    ["a function", { defaultValue: "(random())" }],
    ["more than a default", { defaultValue: "1; DROP TABLE note" }],
    ["a check", { defaultValue: "1 CHECK (random())" }],
    ["a name as default", { defaultValue: '"x"' }],
    ["a generated column", { type: "GENERATED ALWAYS AS (1)" }],
    ["a reference", { type: "INT REFERENCES note" }],
    ["a constraint", { type: "INT NOT NULL DEFAULT 5" }],
    ["more than a type", { type: "INT); DROP TABLE note" }],
    ["a NUL", { name: "c\0" }],
    ["a name in use", { name: "TITLE" }],
    ["a key", { key: 2, notNull: true }],
    ["no default", { notNull: true }],
  ])("with %s are refused", async (_, part) => {
    const { store, db } = await memoryStore();
    await exec(store, noteSQL);
    const schema = () => db.all("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2");
    const before = schema();
    const refused = await store.takeSchema(offer(noteAnd({ ...column, ...part })), "additive");
    expect(refused).toHaveLength(1);
    expect(schema()).toEqual(before);
    await exec(store, "INSERT INTO note VALUES (1, 'one')");
    expect(db.all("SELECT count(*) FROM crsql_changes")).toEqual([[1n]]);
  });
});

test("the generation rises only with equal tables", async () => {
  const { store } = await memoryStore();
  await exec(store, noteSQL);
  const { schemaHash: hash } = await store.heads();
  await store.takeSchema({ link: 1, hash: other, generation: 5, tables: [noteAnd()] }, "additive");
  expect((await store.heads()).generation).toBe(0);
  await store.takeSchema({ link: 1, hash, generation: 3, tables: [] }, "never");
  expect((await store.heads()).generation).toBe(3);
  await store.takeSchema({ link: 1, hash, generation: 2, tables: [] }, "never");
  expect((await store.heads()).generation).toBe(3);
});

describe("what is put aside", () => {
  const site = "07".repeat(16);
  function change(id: number, cid: string, val: Value): Change {
    const pk = Uint8Array.of(1, 9, id);
    return { table: "note", pk, cid, val, colVersion: 1n, dbVersion: 0, site, cl: 1n, seq: 0n };
  }
  function request(version: number, ...changes: Change[]) {
    const groups = [{ link: 1, origin: site, version, changes }];
    return { id: version, groups, claims: new Map([[site, version]]), resume: new Map() };
  }
  const text = textString("x");
  const none = { sync: async () => {}, close: async () => {} };

  async function withNote(): Promise<{ store: SqliteStore; db: Database }> {
    const db = await memoryDatabase();
    const store = new SqliteStore(() => db, none, { changes: 3, bytes: 5000 });
    await exec(store, noteSQL);
    return { store, db };
  }

  test("is bounded: a request beyond that is refused whole, and claims nothing", async () => {
    const { store, db } = await withNote();
    await store.apply(request(1, change(1, "a", text), change(2, "a", text), change(3, "title", text)));
    const refused = await store.apply(
      request(2, change(4, "title", text), change(4, "b", text), change(5, "b", text)),
    );
    expect(refused.refused).toEqual({
      group: 0,
      reason: expect.stringContaining("3 changes are put aside already"),
    });
    expect((await store.state()).vector.get(site)).toBe(1);
    expect(db.all("SELECT id FROM note")).toEqual([[3n]]);
    // The same once more takes no more room.
    expect(
      (await store.apply(request(3, change(1, "a", text), change(4, "b", text)))).refused,
    ).toBeUndefined();
    expect((await store.apply(request(4, change(6, "b", text)))).refused).toBeDefined();
    expect(await store.parked()).toMatchObject({
      changes: 3,
      tables: [
        { table: "note", reason: 'the table has no column "a"', changes: 2 },
        { table: "note", reason: 'the table has no column "b"', changes: 1 },
      ],
      more: 0,
    });
    await exec(
      store,
      "SELECT crsql_begin_alter('note'); ALTER TABLE note ADD COLUMN a; SELECT crsql_commit_alter('note')",
    );
    await store.replay();
    expect(await store.parked()).toMatchObject({ changes: 1 });
    expect(db.all("SELECT id, a FROM note WHERE a IS NOT NULL")).toEqual([
      [1n, "x"],
      [2n, "x"],
    ]);
    const large = textString("x".repeat(5000));
    expect((await store.apply(request(9, change(7, "large", large)))).refused).toBeDefined();
  });

  test("outlives a restart and is passed on", async () => {
    const { store, db } = await withNote();
    await store.apply(request(1, change(1, "a", text)));
    const again = new SqliteStore(() => db, none);
    expect((await again.state()).parked).toMatchObject({ changes: 1 });
    const third = await memoryStore();
    await exec(
      third.store,
      "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, a); SELECT crsql_as_crr('note')",
    );
    await transfer(again, third.store, START);
    expect(third.db.all("SELECT * FROM note")).toEqual([[1n, "x"]]);
  });
});
