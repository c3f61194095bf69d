// The golden vectors that Go and TypeScript share, and what a tree and a scan have in common.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fromHex, toHex } from "./change.ts";
import {
  addSums,
  columnsDigest,
  DigestTree,
  digestBytes,
  noRows,
  PartScan,
  placeOf,
  RowHasher,
  type RowSum,
} from "./digest.ts";
import { parseValue } from "./pack.ts";

test("rows have the digests that they have in Go", () => {
  const url = new URL("../../../pkg/crsql/changeset/testdata/digests.txt", import.meta.url);
  const lines = readFileSync(url, "utf8").trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(5);
  const hasher = new RowHasher();
  let sum = noRows;
  for (const line of lines) {
    const [name, table = "", key = "", cl = "", there, cells = "", place, digest, total] = line.split("\t");
    const pk = fromHex(key);
    hasher.begin(table, pk, BigInt(cl), there === "true");
    for (const cell of cells === "" ? [] : cells.split(",")) {
      const [cid = "", version = "", value = ""] = cell.split(" ");
      hasher.cell(cid, BigInt(version), parseValue(fromHex(value), 0).value);
    }
    const got = hasher.sum();
    sum = addSums(sum, { count: 1, digest: got });
    expect([name, placeOf(pk), toHex(digestBytes(got)), toHex(digestBytes(sum.digest))]).toEqual([
      name,
      place,
      digest,
      total,
    ]);
  }
  expect(sum.count).toBe(lines.length);
  expect(toHex(digestBytes(columnsDigest(["b", "a"], ["c", "z", "é"])))).toBe(
    "2391f98c8ce9126438f0ca51458aa7e7",
  );
});

test("a tree and a scan give the same sums", () => {
  for (const n of [0, 1, 64, 65, 3000]) {
    const rows: RowSum[] = [];
    for (let i = 0; i < n; i++) {
      const hash = placeOf(Uint8Array.of(i, i >> 8));
      const place = i % 2 === 0 ? `abcdef${hash.slice(6)}` : hash;
      rows.push({ place, key: undefined, cl: 1n, versions: 1n, digest: BigInt(`0x${hash}`) });
    }
    const tree = new DigestTree(n);
    for (const r of rows) tree.add(r.place, r.digest);
    for (const prefix of ["", "a", "ab", "abcdef", "00"]) {
      const scan = new PartScan([prefix, prefix]);
      for (const r of rows) {
        expect(scan.wants(r.place)).toBe(r.place.startsWith(prefix));
        scan.add(r);
      }
      const [part, again] = scan.parts();
      expect(again).toEqual(part);
      const children = tree.children(prefix);
      if (children) expect(part).toEqual({ children });
      if (prefix === "") {
        const all = rows.reduce((s, r) => addSums(s, { count: 1, digest: r.digest }), noRows);
        expect(tree.total()).toEqual(all);
        if (n > 64) expect(children?.reduce(addSums)).toEqual(all);
        else expect(part).toHaveProperty("rows.length", n);
      }
    }
  }
});
