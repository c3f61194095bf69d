import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fromHex, toHex } from "./change.ts";
import { PackedError, pack, parseCanonical, parsePacked } from "./pack.ts";
import {
  blob,
  compareValues,
  equalValues,
  integer,
  nullValue,
  real,
  text,
  textString,
  type Value,
  valueSize,
} from "./value.ts";

// What the stock engine's crsql_pack_columns gives.
const stock: [Value[], string][] = [
  [[integer(0)], "0101"],
  [[integer(1)], "010901"],
  [[integer(-1)], "0141ffffffffffffffff"],
  [[integer(127)], "01097f"],
  [[integer(128)], "010980"],
  [[integer(256)], "01110100"],
  [[integer(65536)], "0119010000"],
  [[integer(2 ** 31)], "012180000000"],
  [[integer(2 ** 40)], "0131010000000000"],
  [[real(1.5)], "01023ff8000000000000"],
  [[textString("")], "0103"],
  [[textString("hello")], "010b0568656c6c6f"],
  [[blob(new Uint8Array(0))], "0104"],
  [[blob(new Uint8Array([0, 255]))], "010c0200ff"],
  [[nullValue()], "0105"],
  [[integer(1), textString("ab"), nullValue(), real(2)], "0409010b02616205024000000000000000"],
];

test.each(stock.map(([values, hex]) => ({ values, hex })))("packs to $hex", ({ values, hex }) => {
  expect(toHex(pack(values))).toBe(hex);
  const parsed = parseCanonical(fromHex(hex));
  expect(parsed.length).toBe(values.length);
  parsed.forEach((v, i) => {
    expect(equalValues(v, values[i] as Value)).toBe(true);
  });
  expect(1 + values.reduce((n, v) => n + valueSize(v), 0)).toBe(hex.length / 2);
});

test("no prefix of a key parses", () => {
  for (const [, hex] of stock) {
    for (let n = 0; n < hex.length / 2; n++) {
      expect(() => parsePacked(fromHex(hex).subarray(0, n))).toThrow(PackedError);
    }
  }
});

test("what cr-sqlite reads but does not write is not canonical", () => {
  for (const hex of [
    "01090100",
    "01110001",
    "010a3ff8000000000000",
    "010d",
    "01027ff8000000000000",
    "010b0161ff",
  ]) {
    expect(() => parseCanonical(fromHex(hex))).toThrow(PackedError);
    expect(parsePacked(fromHex(hex)).length).toBe(1);
  }
  for (const hex of ["0100", "0107", "0149000000000000000000", "010bff61", "0143ffffffffffffffff"]) {
    expect(() => parsePacked(fromHex(hex))).toThrow(PackedError);
  }
});

test("values in the order of a merge", () => {
  const ascending = [
    nullValue(),
    blob(new Uint8Array([])),
    blob(new Uint8Array([255])),
    textString(""),
    textString("a"),
    textString("ab"),
    textString("b"),
    textString("ü"),
    real(Number.NEGATIVE_INFINITY),
    real(-0.5),
    real(0),
    real(1e300),
    integer(-(2n ** 63n)),
    integer(-1),
    integer(0),
    integer(2n ** 63n - 1n),
  ];
  ascending.forEach((a, i) => {
    ascending.forEach((b, j) => {
      expect(compareValues(a, b)).toBe(Math.sign(i - j));
    });
  });
  expect(compareValues(real(0), real(-0))).toBe(0);
  expect(equalValues(real(0), real(-0))).toBe(false);
  expect(real(Number.NaN)).toEqual(nullValue());
});

// The golden vectors that Go and TypeScript share, each line cut at its tabs.
function golden(name: string): string[][] {
  const url = new URL(`../../../pkg/crsql/changeset/testdata/${name}`, import.meta.url);
  const lines = readFileSync(url, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => line.split("\t"));
}

function typed(pair: string[] | null): Value {
  const [kind, value = ""] = pair ?? [];
  switch (kind) {
    case "integer":
      return integer(BigInt(value));
    case "real":
      return real(new DataView(fromHex(value).buffer).getFloat64(0));
    case "text":
      return text(fromHex(value));
    case "blob":
      return blob(fromHex(value));
    default:
      return nullValue();
  }
}

test.each(golden("packed.txt"))("shared vector: %s", (_, described = "", hex = "") => {
  const want = (JSON.parse(described) as (string[] | null)[]).map(typed);
  expect(toHex(pack(want))).toBe(hex);
  for (const parse of [parsePacked, parseCanonical]) {
    const got = parse(fromHex(hex));
    expect(got.length).toBe(want.length);
    got.forEach((v, i) => {
      expect(equalValues(v, want[i] as Value)).toBe(true);
    });
  }
});

test.each(golden("refused.txt"))("shared refusal: %s", (_, by = "", hex = "") => {
  expect(() => parseCanonical(fromHex(hex))).toThrow(PackedError);
  if (by === "both") expect(() => parsePacked(fromHex(hex))).toThrow(PackedError);
  else expect(parsePacked(fromHex(hex)).length).toBeGreaterThan(0);
});
