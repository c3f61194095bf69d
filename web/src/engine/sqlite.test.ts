import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { beforeEach, describe, expect, test } from "vitest";
import { Database, SqliteError, type SqlValue, STATEMENT_CACHE } from "./sqlite.ts";
import { instantiate } from "./wasm.ts";

const wasmBinary = readFileSync(
  createRequire(import.meta.url).resolve("@vlcn.io/wa-sqlite/dist/crsqlite-sync.wasm"),
);

let db: Database;
beforeEach(async () => {
  db = new Database(await instantiate({ wasmBinary }), ":memory:");
});

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("values", () => {
  const values: Record<string, SqlValue> = {
    null: null,
    zero: 0n,
    "2^53+1": 2n ** 53n + 1n,
    "2^40": 2n ** 40n,
    "2^31": 2n ** 31n,
    "-2^31": -(2n ** 31n),
    "-2^31-1": -(2n ** 31n) - 1n,
    "-1": -1n,
    "smallest integer": -(2n ** 63n),
    "largest integer": 2n ** 63n - 1n,
    "real 2": 2,
    "negative zero": -0,
    "real 2^53": 2 ** 53,
    infinity: Number.POSITIVE_INFINITY,
    "empty text": "",
    "empty blob": new Uint8Array(0),
    "text with NUL": "a\0b",
    "byte order mark": "\ufeffx",
    emoji: "naïve 🦫",
    blob: Uint8Array.of(0, 255, 0),
  };
  for (const [name, value] of Object.entries(values)) {
    test(`${name} keeps its storage class and content`, () => {
      db.script("CREATE TABLE t (v)");
      db.run("INSERT INTO t VALUES (?)", value);
      const stored = db.get("SELECT v, typeof(v), length(CAST(v AS BLOB)) FROM t");
      const types = {
        object: value === null ? "null" : "blob",
        bigint: "integer",
        number: "real",
        string: "text",
      };
      expect(stored?.[0]).toStrictEqual(value);
      expect(stored?.[1]).toBe(types[typeof value as keyof typeof types]);
      if (typeof value === "string") expect(stored?.[2]).toBe(BigInt(utf8(value).length));
    });
  }

  test("text that is not UTF-8 reads with replacement characters, and its bytes stay", () => {
    const statement = db.prepare("SELECT ?");
    const bytes = Uint8Array.of(0x61, 0xff, 0xc3);
    statement.bindText(1, bytes);
    expect(statement.step()).toBe(true);
    expect(statement.column(0)).toBe("a\ufffd\ufffd");
    expect(statement.columnBytes(0)).toStrictEqual(bytes);
    statement.reset();
  });

  test("a 10 MB blob passes", () => {
    const blob = new Uint8Array(10 << 20).map((_, i) => i * 31);
    const read = db.get("SELECT ?", blob)?.[0] as Uint8Array;
    expect(Buffer.compare(read, blob)).toBe(0);
  });

  test("an integer of more than 64 bits is refused", () => {
    expect(() => db.get("SELECT ?", 2n ** 63n)).toThrow("does not fit a 64-bit INTEGER");
  });
});

describe("statements", () => {
  test("the number of parameters has to be right", () => {
    expect(() => db.get("SELECT ?, ?", 1n)).toThrow("takes 2 parameters, 1 given");
  });

  test("an error carries SQLite's message, code and the text", () => {
    db.script("CREATE TABLE t (k PRIMARY KEY)");
    db.run("INSERT INTO t VALUES (1)");
    const error = (() => {
      try {
        db.run("INSERT INTO t VALUES (1)");
      } catch (e) {
        return e as SqliteError;
      }
    })();
    expect(error).toBeInstanceOf(SqliteError);
    expect(error?.message).toBe("UNIQUE constraint failed: t.k");
    expect(error?.code).toBe(19);
    expect(error?.sql).toBe("INSERT INTO t VALUES (1)");
    expect(db.all("SELECT k FROM t")).toStrictEqual([[1n]]);
  });

  test("more statements than the cache holds go on working, and a busy one is kept", () => {
    const first = db.prepare("SELECT 1 UNION SELECT 2");
    expect(first.step()).toBe(true);
    for (let i = 0; i < STATEMENT_CACHE * 2; i++) expect(db.get(`SELECT ${i}`)).toStrictEqual([BigInt(i)]);
    expect(first.step()).toBe(true);
    expect(first.column(0)).toBe(2n);
    first.reset();
    expect(db.prepare("SELECT 1 UNION SELECT 2")).toBe(first);
  });

  test("a script runs each statement after the one before it", () => {
    db.script(
      "CREATE TABLE t (v); -- text\n INSERT INTO t VALUES ('a;b'); INSERT INTO t SELECT v FROM t; ; ; -- end\nINSERT INTO t VALUES (3);\n",
    );
    expect(db.get("SELECT count(*) FROM t")).toStrictEqual([3n]);
  });

  test("a transaction that throws leaves nothing", () => {
    db.script("CREATE TABLE t (v)");
    const failing = (): never =>
      db.transaction(() => {
        db.run("INSERT INTO t VALUES (1)");
        throw new Error("stop");
      });
    expect(failing).toThrow("stop");
    expect(db.inTransaction).toBe(false);
    expect(db.get("SELECT count(*) FROM t")).toStrictEqual([0n]);
  });
});

test("it is cr-sqlite, and closes with its tables in use", () => {
  db.script(
    "CREATE TABLE t (id PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 2.0)",
  );
  expect(db.all('SELECT "table", cid, val, db_version FROM crsql_changes')).toStrictEqual([
    ["t", "v", 2, 1n],
  ]);
  db.close();
  db.close();
  expect(() => db.all("SELECT 1")).toThrow("closed");
});
