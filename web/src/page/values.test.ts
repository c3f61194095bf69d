import { describe, expect, it } from "vitest";
import { reads } from "./sql-box.tsx";
import { kindOf, kindOfColumn, kinds, parseValue, realText, sameValue, toText } from "./values.ts";

const samples = [
  null,
  0n,
  -1n,
  2n ** 63n - 1n,
  -(2n ** 63n),
  9007199254740993n,
  0,
  2,
  -0.5,
  1e300,
  Number.POSITIVE_INFINITY,
  "",
  " padded ",
  "two\nlines",
  "Zürich 北京 🇨🇭",
  "nul\0inside",
  "cr\r\nlf",
  new Uint8Array(),
  new Uint8Array([0, 255, 16]),
];

describe("values in the editor", () => {
  it.each(samples.map((value) => ({ value })))("come back as they were: $value", ({ value }) => {
    const kind = kindOf(value);
    const parsed = parseValue(toText(value, kind), kind);
    expect(parsed).toHaveProperty("value");
    if ("value" in parsed) expect(sameValue(parsed.value, value)).toBe(true);
  });

  it("never guess: what is no value of its kind is refused with a sentence", () => {
    for (const [text, kind] of [
      ["1.5", "INTEGER"],
      ["", "INTEGER"],
      ["9223372036854775808", "INTEGER"],
      ["-9223372036854775809", "INTEGER"],
      ["", "REAL"],
      ["one", "REAL"],
      ["abc", "BLOB in hex"],
      ["zz", "BLOB in hex"],
      ["ff", "TEXT in hex"],
    ] as const) {
      expect(parseValue(text, kind), `${text} as ${kind}`).toHaveProperty("error");
    }
  });

  it("tell REAL from INTEGER", () => {
    expect(realText(2)).toBe("2.0");
    expect(realText(1e21)).toBe("1e+21");
    expect(parseValue("2", "REAL")).toEqual({ value: 2 });
    expect(parseValue("+2", "INTEGER")).toEqual({ value: 2n });
    expect(sameValue(2, 2n)).toBe(false);
  });

  it("take the kind of a new value from the column", () => {
    expect(["INTEGER", "VARCHAR(9)", "BLOB", "DOUBLE", ""].map(kindOfColumn)).toEqual([
      "INTEGER",
      "TEXT",
      "BLOB in hex",
      "REAL",
      "TEXT",
    ]);
    for (const type of ["INT", "TEXT", "BLOB", "REAL", "ANY"]) expect(kinds).toContain(kindOfColumn(type));
  });
});

describe("the SQL box", () => {
  it("tells statements that read from those that write", () => {
    for (const sql of [
      "SELECT 1",
      "  -- why\nselect 1",
      "/* a */ VALUES (1)",
      "WITH a AS (SELECT 1) SELECT * FROM a",
    ]) {
      expect(reads(sql), sql).toBe(true);
    }
    for (const sql of [
      "INSERT INTO t VALUES (1)",
      "SELECT crsql_as_crr('t')",
      "WITH a AS (SELECT 1) DELETE FROM t",
      "CREATE TABLE t(a); SELECT 1",
    ]) {
      expect(reads(sql), sql).toBe(false);
    }
  });
});
