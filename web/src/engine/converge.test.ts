import { expect, test } from "vitest";
import { EntryEnd, type Position } from "../syncproto/vector.ts";
import type { Database } from "./sqlite.ts";
import type { SqliteStore } from "./store.ts";
import { exec, memoryStore, random, readAll, START, transfer } from "./testing/memory.ts";

// Three stores write at random, and pass everything on to each other in random pieces; at the end all are equal.

const RUNS = Number(process.env.CRMESH_RUNS ?? 12);
const STEPS = 40;

const SCHEMA = `
CREATE TABLE plain (id INTEGER PRIMARY KEY NOT NULL, v, w DEFAULT 7);
CREATE TABLE pair (a TEXT NOT NULL, b NOT NULL, "wert ä" REAL, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE "schlüssel" (k TEXT PRIMARY KEY NOT NULL);
SELECT crsql_as_crr('plain'); SELECT crsql_as_crr('pair'); SELECT crsql_as_crr('schlüssel')`;

interface Peer {
  store: SqliteStore;
  db: Database;
  /** Where the walk of each other peer has got to. */
  at: Map<Peer, Position>;
}

function pick<T>(rnd: () => number, items: readonly T[]): T {
  return items[Math.floor(rnd() * items.length)] as T;
}

const VALUES = [
  "NULL",
  "1",
  "2",
  "2.0",
  "9007199254740993",
  "''",
  "x''",
  "'a'",
  "x'00ff'",
  "'ä' || char(0)",
  "-1.5",
];

function statement(rnd: () => number): string {
  const id = Math.floor(rnd() * 4);
  const v = pick(rnd, VALUES);
  const key = pick(rnd, ["'k'", "''", "'ß'"]);
  const b = pick(rnd, ["1", "2.5", "'x'"]);
  return pick(rnd, [
    `INSERT INTO plain (id, v) VALUES (${id}, ${v}) ON CONFLICT DO UPDATE SET v = excluded.v`,
    `UPDATE plain SET w = ${v} WHERE id = ${id}`,
    `UPDATE plain SET v = ${v}, w = ${pick(rnd, VALUES)}`,
    `DELETE FROM plain WHERE id = ${id}`,
    `INSERT OR REPLACE INTO pair VALUES (${key}, ${b}, 1.0)`,
    `UPDATE pair SET "wert ä" = ${pick(rnd, ["NULL", "2.0", "3.5"])} WHERE a = ${key}`,
    `DELETE FROM pair WHERE b = ${b}`,
    `INSERT OR IGNORE INTO "schlüssel" VALUES (${key})`,
    `DELETE FROM "schlüssel" WHERE k = ${key}`,
  ]);
}

/** Everything that has to be equal on all peers. */
function content(db: Database): unknown {
  const queries = [
    'SELECT "table", pk, cid, val, typeof(val), col_version, cl FROM crsql_changes ORDER BY "table", pk, cid',
    "SELECT * FROM plain ORDER BY id",
    "SELECT * FROM pair ORDER BY b, a",
    'SELECT * FROM "schlüssel" ORDER BY k',
  ];
  return queries.map((sql) => db.all(sql));
}

for (let seed = 1; seed <= RUNS; seed++) {
  test(`three stores become equal (seed ${seed})`, async () => {
    const rnd = random(seed);
    const peers: Peer[] = [];
    for (let i = 0; i < 3; i++) {
      const peer = { ...(await memoryStore()), at: new Map<Peer, Position>() };
      await exec(peer.store, SCHEMA);
      peers.push(peer);
    }
    const pull = async (from: Peer, to: Peer): Promise<void> => {
      const size = pick(rnd, [1, 3, 1000]);
      to.at.set(from, await transfer(from.store, to.store, to.at.get(from) ?? START, { maxChanges: size }));
    };
    for (let step = 0; step < STEPS; step++) {
      const peer = pick(rnd, peers);
      if (rnd() < 0.6) {
        const n = 1 + Math.floor(rnd() * 3);
        await exec(peer.store, Array.from({ length: n }, () => statement(rnd)).join("; "));
      } else {
        const other = pick(rnd, peers);
        if (other !== peer) await pull(other, peer);
      }
    }
    for (let round = 0; round < 3; round++) {
      for (const a of peers) for (const b of peers) if (a !== b) await pull(a, b);
    }
    const [first, ...others] = peers as [Peer, ...Peer[]];
    const want = content(first.db);
    for (const other of others) expect(content(other.db)).toStrictEqual(want);
    for (const { store, at } of peers) {
      // Each L is of one entry, in order, and nothing is left to read behind where the others are.
      const { entries, next } = await readAll(store, START);
      expect(entries.map((e) => e.l)).toStrictEqual(
        [...new Set(entries.map((e) => e.l))].sort((a, b) => a - b),
      );
      const { newest } = await store.heads();
      expect(next).toStrictEqual({ l: newest, seq: EntryEnd });
      for (const position of at.values()) expect(position.seq).toBe(EntryEnd);
    }
  });
}
