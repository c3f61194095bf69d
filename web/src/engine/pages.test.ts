import { expect, test } from "vitest";
import { BLOCK, MAX_PAGED_BYTES, PagedFile } from "./pages.ts";
import { Kept } from "./testing/kept.ts";
import { exec, random } from "./testing/memory.ts";

test("every acknowledged commit is there after the process ended, and the file stays sound", async () => {
  const seed = 7;
  const rnd = random(seed);
  const kept = new Kept();
  let { store } = await kept.open();
  await exec(store, "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')");
  const { site } = await store.state();
  const rows = new Map<bigint, Uint8Array>();
  for (let i = 0; i < 60; i++) {
    const id = BigInt(Math.floor(rnd() * 30));
    const v = new Uint8Array(Math.floor(rnd() * 20_000)).fill(i);
    const step = rnd();
    if (step < 0.2) {
      await exec(store, "DELETE FROM t WHERE id >= 15");
      for (const key of rows.keys()) if (key >= 15n) rows.delete(key);
    } else if (step < 0.4) {
      // A transaction that spills its pages and fails leaves nothing.
      await expect(
        exec(store, "UPDATE t SET v = zeroblob(30000); INSERT INTO t VALUES ('x', 1)"),
      ).rejects.toThrow();
    } else {
      await exec(store, "INSERT OR REPLACE INTO t VALUES (?, ?)", id, v);
      rows.set(id, v);
    }
    if (rnd() < 0.1) ({ store } = await kept.open());
  }
  const { db: again, store: last } = await kept.open();
  const sorted = [...rows].sort(([a], [b]) => Number(a - b));
  expect(again.all("SELECT id, v FROM t ORDER BY id"), `seed ${seed}`).toStrictEqual(sorted);
  expect(again.all("PRAGMA integrity_check")).toStrictEqual([["ok"]]);
  expect((await last.state()).site).toBe(site);
  expect(kept.syncs).toBeGreaterThan(30);
});

test("a read alone keeps nothing, and a file cannot grow beyond its bound", async () => {
  const kept = new Kept();
  const { store } = await kept.open();
  await exec(store, "CREATE TABLE t (v)");
  const before = kept.syncs;
  await store.query("SELECT * FROM t", []);
  expect(kept.syncs).toBe(before);
  const file = new PagedFile([], 0);
  const out = new DataView(new ArrayBuffer(4));
  file.xOpen("x.db", 1, 0x100, out);
  expect(file.xWrite(1, new Uint8Array(BLOCK), MAX_PAGED_BYTES)).toBe(13);
  expect(file.xWrite(1, new Uint8Array(BLOCK), MAX_PAGED_BYTES - BLOCK)).toBe(0);
});
