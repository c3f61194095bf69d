// New site ids for databases that were put back, or are copies: nothing that they hold is lost, on any peer.

import { describe, expect, test } from "vitest";
import { fromHex, type SiteID, toHex } from "../changeset/change.ts";
import { MaxVectorSites } from "../syncproto/message.ts";
import { DecideSend, DecideSkip, type Entry } from "../syncproto/ops.ts";
import { covers, without, withVersion } from "../syncproto/vector.ts";
import type { Renewal } from "../worker/store.ts";
import type { Database } from "./sqlite.ts";
import type { SqliteStore } from "./store.ts";
import { Kept } from "./testing/kept.ts";
import { exec, random, readAll, START } from "./testing/memory.ts";

const SCHEMA = `
CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title, body, n REAL);
CREATE TABLE pair (a TEXT NOT NULL, b NOT NULL, "wert ä", PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE tag (name TEXT PRIMARY KEY NOT NULL);
SELECT crsql_as_crr('note'); SELECT crsql_as_crr('pair'); SELECT crsql_as_crr('tag')`;

/** A peer whose file is kept. */
class Peer {
  kept: Kept;
  store!: SqliteStore;
  db!: () => Database;

  private constructor(kept: Kept) {
    this.kept = kept;
  }

  static async on(kept: Kept): Promise<Peer> {
    const peer = new Peer(kept);
    await peer.start();
    return peer;
  }

  static async fresh(): Promise<Peer> {
    const peer = await Peer.on(new Kept());
    await exec(peer.store, SCHEMA);
    return peer;
  }

  /** Opens what is kept, as after the end of the process, or what `kept` holds: the file was written over with that. */
  async start(kept = this.kept): Promise<void> {
    this.kept = kept;
    const opened = await kept.open();
    this.store = opened.store;
    this.db = () => opened.db;
  }

  exec(sql: string): Promise<void> {
    return exec(this.store, sql);
  }

  /** Takes what `from` has beyond what is covered here, and its claims: one whole walk. */
  async meet(from: Peer): Promise<void> {
    const { site, own, vector } = await this.store.state();
    const theirs = await from.store.state();
    const covered = withVersion(theirs.vector, theirs.site, theirs.own);
    if ((covered.get(site) ?? 0) > own || site === theirs.site) throw new Error("disputed");
    const claims = without(covered, site);
    const known = withVersion(vector, site, own);
    const { entries } = await readAll(from.store, START, {
      decide: (origin, version) => (covers(known, origin, version) ? DecideSkip : DecideSend),
    });
    const groups = entries.map(({ origin, version, changes }) => ({ link: 1, origin, version, changes }));
    await this.store.apply({ id: 1, groups, claims, resume: new Map([[theirs.site, theirs.newest]]) });
  }

  async renew(): Promise<Extract<Renewal, { site: SiteID }>> {
    const done = await this.store.renew();
    if ("refused" in done) throw new Error(done.refused);
    return done;
  }

  /** Everything that has to be equal on all peers. */
  content(): unknown {
    return [
      'SELECT "table", pk, cid, val, typeof(val), col_version, cl FROM crsql_changes ORDER BY "table", pk, cid',
      "SELECT * FROM note ORDER BY id",
      "SELECT * FROM pair ORDER BY b, a",
      "SELECT * FROM tag ORDER BY name",
    ].map((sql) => this.db().all(sql));
  }

  rows(): string[] {
    const sql = `SELECT 'note ' || id || ' ' || quote(title) || quote(body) || quote(n) FROM note
      UNION ALL SELECT 'pair ' || a || ' ' || b || quote("wert ä") FROM pair UNION ALL SELECT 'tag ' || name FROM tag ORDER BY 1`;
    return this.db()
      .all(sql)
      .map(([row]) => String(row));
  }

  /** Where each entry comes from, by local version. */
  async origins(): Promise<Map<number, string>> {
    const { entries } = await readAll(this.store, START);
    return new Map(entries.map((e: Entry) => [e.l, `${e.origin} ${e.version}`]));
  }
}

/** Lets all meet each other until nobody has anything new for anybody. */
async function meetAll(...peers: Peer[]): Promise<void> {
  for (const _ of peers) for (const a of peers) for (const b of peers) if (a !== b) await a.meet(b);
}

/** A peer with entries of all kinds, own and merged, and one that has met it. */
async function history(): Promise<[Peer, Peer]> {
  const [x, other] = [await Peer.fresh(), await Peer.fresh()];
  await x.exec("INSERT INTO note VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3)");
  await x.exec("INSERT INTO pair VALUES ('x', 1, 1), ('y', 2, 2); INSERT INTO tag VALUES ('t'), ('u')");
  await other.exec("INSERT INTO note VALUES (7, 'theirs', 7, 7), (8, 'theirs', 8, 8)");
  await other.exec("DELETE FROM note WHERE id = 7");
  await x.meet(other);
  await x.exec("UPDATE note SET title = 'mine' WHERE id = 8");
  await x.exec("DELETE FROM note WHERE id = 2; DELETE FROM tag WHERE name = 'u'");
  await other.meet(x);
  return [x, other];
}

test("nothing but the site id is another one, and a peer that has all gets nothing twice", async () => {
  const [x, other] = await history();
  await x.start();
  const before = await x.store.state();
  const [content, origins] = [x.content(), await x.origins()];
  const syncs = x.kept.syncs;
  const done = await x.renew();
  expect(done).toMatchObject({ old: before.site, reasserted: 0 });
  expect(done.entries).toBeGreaterThan(2);
  expect(x.kept.syncs).toBe(syncs + 1); // one commit: there is nothing between the old site and the new one
  const after = await x.store.state();
  expect(after.site).toBe(done.site);
  expect(after.site).toMatch(/^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  expect(after.site).not.toBe(before.site);
  expect(after).toMatchObject({ own: 0, newest: before.newest });
  expect(after.vector).toEqual(new Map([...before.vector, [before.site, before.own]]));
  expect(after.resume).toEqual(new Map());
  expect(x.content()).toEqual(content);
  expect(await x.origins()).toEqual(origins);
  // The engine knows the new id and the old one.
  expect(x.db().get("SELECT crsql_site_id()")).toEqual([fromHex(after.site)]);
  const sites = x.db().all("SELECT site_id, ordinal FROM crsql_site_id ORDER BY ordinal");
  expect(sites.map(([id]) => toHex(id as Uint8Array))).toEqual([
    after.site,
    (await other.store.state()).site,
    before.site,
  ]);
  for (const table of ["note", "pair", "tag"]) {
    const strays = `SELECT count(*) FROM ${table}__crsql_clock WHERE site_id NOT IN (SELECT ordinal FROM crsql_site_id WHERE ordinal > 0)`;
    expect(x.db().get(strays)).toEqual([0n]);
  }
  // All of it is kept, and what is written from now on is the new site's.
  await x.start();
  expect(await x.store.state()).toMatchObject({ site: after.site, own: 0 });
  await x.exec("INSERT INTO tag VALUES ('new')");
  const { own, newest } = await x.store.heads();
  expect([own, newest]).toEqual([before.newest + 1, before.newest + 1]);
  expect((await x.origins()).get(own)).toBe(`${after.site} ${own}`);
  const tag =
    "SELECT s.site_id FROM tag__crsql_clock c JOIN crsql_site_id s ON s.ordinal = c.site_id WHERE db_version = ?";
  expect(x.db().get(tag, BigInt(own))).toEqual([fromHex(after.site)]);
  await meetAll(x, other);
  expect(other.content()).toEqual(x.content());
});

test("a database that was put back gets the lost time again, and gives what it wrote since", async () => {
  const [x, other] = await history();
  const third = await Peer.fresh();
  await third.meet(x);
  const backup = x.kept.copy();
  for (let i = 0; i < 9; i++) await x.exec(`INSERT INTO note VALUES (${100 + i}, 'lost', 0, 0)`);
  await x.exec("UPDATE note SET title = 'lost' WHERE id = 1");
  await other.meet(x);
  await x.start(backup);
  const { site, own: certain } = await x.store.state();
  await x.exec("UPDATE note SET body = 'new' WHERE id = 1");
  await x.exec("DELETE FROM note WHERE id = 3");
  await x.exec("INSERT INTO tag VALUES ('new'), ('u')");
  await expect(x.meet(other)).rejects.toThrow("disputed");
  const rows = x.rows();
  await x.renew();
  expect(x.rows()).toEqual(rows);
  expect((await x.store.state()).vector.get(site)).toBe(certain);
  await meetAll(x, other, third);
  expect(other.content()).toEqual(x.content());
  expect(third.content()).toEqual(x.content());
  expect(x.rows()).toEqual(
    expect.arrayContaining(["note 1 'lost''new'1.0", "note 108 'lost'00.0", "tag new", "tag u"]),
  );
  expect(x.rows().filter((row) => row.startsWith("note 3 "))).toEqual([]);
});

test("what others hold under the same numbers is beaten, also by the way of a peer that has it already", async () => {
  const [x, knows] = await history();
  await x.exec(
    "INSERT INTO note VALUES (4, 'd', 4, 4); INSERT INTO pair VALUES ('z', 3, 3); INSERT INTO tag VALUES ('v')",
  );
  const ignorant = await Peer.fresh();
  await meetAll(x, knows, ignorant);
  await x.start();
  const backup = x.kept.copy();
  for (let i = 0; i < 20; i++) await x.exec(`INSERT INTO note VALUES (${100 + i}, 'lost', 0, 0)`);
  await knows.meet(x);
  await x.start(backup);
  const { site, own: certain } = await x.store.state();
  for (const sql of [
    "UPDATE note SET body = 'new' WHERE id = 1",
    "INSERT INTO note VALUES (5, 'new', 5, 5)",
    "DELETE FROM note WHERE id = 8",
    "DELETE FROM note WHERE id = 3",
    "INSERT INTO note VALUES (3, 'again', 3, 3)",
    "UPDATE note SET id = 9 WHERE id = 4",
    "UPDATE pair SET \"wert ä\" = 'new' WHERE a = 'x'",
    "DELETE FROM pair WHERE a = 'y'",
    "UPDATE pair SET b = 30 WHERE a = 'z'",
    "INSERT INTO tag VALUES ('new')",
    "DELETE FROM tag WHERE name = 't'",
    "DELETE FROM tag WHERE name = 'v'",
    "INSERT INTO tag VALUES ('v')",
  ]) {
    await x.exec(sql);
  }
  await ignorant.meet(x);
  // Of this row the causal length is in doubt, and the columns are somebody else's.
  await ignorant.exec("UPDATE note SET title = 'theirs', body = 33, n = 33 WHERE id = 3");
  await x.meet(ignorant);
  await expect(x.meet(knows)).rejects.toThrow("disputed");
  await x.exec("CREATE TABLE fired (n)");
  for (const table of ["note", "pair", "tag"]) {
    for (const event of ["INSERT", "UPDATE", "DELETE"]) {
      await x.exec(
        `CREATE TRIGGER ${table}${event} AFTER ${event} ON ${table} BEGIN INSERT INTO fired VALUES (1); END`,
      );
    }
  }
  const [rows, before] = [x.rows(), await x.store.state()];
  const done = await x.renew();
  const after = await x.store.state();
  expect(x.rows()).toEqual(rows);
  expect(x.db().all("SELECT * FROM fired")).toEqual([]);
  expect(done.reasserted).toBeGreaterThan(15);
  expect(after.vector.get(site)).toBe(certain);
  expect([after.own, after.newest]).toEqual([before.newest + 1, before.newest + 1]);
  for (const [l, origin] of await x.origins()) expect(origin.startsWith(after.site)).toBe(l === after.own);
  const versions = `SELECT c.col_version FROM note__crsql_clock c JOIN note__crsql_pks k ON k.__crsql_key = c.key
    WHERE k.id = 3 AND c.db_version = (SELECT max(db_version) FROM note__crsql_clock) ORDER BY c.col_name`;
  expect(x.db().all(versions)).toEqual([[5n], [3n], [3n], [3n]]);
  const seqs = `SELECT count(*), count(DISTINCT seq), max(seq) FROM crsql_changes WHERE db_version = ${after.own}`;
  const n = BigInt(done.reasserted);
  expect(x.db().get(seqs)).toEqual([n, n, n - 1n]);

  // The one who knows what was lost never meets x itself.
  await ignorant.meet(x);
  expect(ignorant.rows()).toEqual(rows);
  await knows.meet(ignorant);
  const known = knows.rows();
  expect(rows.filter((row) => !known.includes(row))).toEqual([]);
  expect(known.filter((row) => !rows.includes(row) && !row.includes("lost"))).toEqual([]);
  // And what was lost comes back from there.
  await x.meet(knows);
  expect(x.content()).toEqual(knows.content());
  // A second renewal finds nothing in doubt.
  const { own } = await x.store.state();
  expect((await x.renew()).reasserted).toBe(0);
  const last = await x.store.state();
  expect([last.own, last.vector.get(after.site)]).toEqual([0, own]);
});

test("two files of one site that both go on end with all rows, as does a third one", async () => {
  const [a, third] = await history();
  await a.start();
  const b = await Peer.on(a.kept.copy());
  for (const [name, x] of [
    ["a", a],
    ["b", b],
  ] as const) {
    await x.exec("UPDATE note SET title = 'same' WHERE id = 1");
    await x.exec(
      `UPDATE note SET title = '${name}' WHERE id = 3; INSERT INTO tag VALUES ('same'), ('${name}')`,
    );
    await x.exec(`INSERT INTO note VALUES (10, '${name}', 0, 0)`);
  }
  await a.exec("DELETE FROM note WHERE id = 8");
  await b.exec("UPDATE note SET body = 'kept?' WHERE id = 8");
  await third.meet(a);
  await expect(a.meet(b)).rejects.toThrow("disputed");
  await a.renew();
  await b.renew();
  expect((await a.store.state()).site).not.toBe((await b.store.state()).site);
  await meetAll(a, b, third);
  expect(b.content()).toEqual(a.content());
  expect(third.content()).toEqual(a.content());
  expect(a.rows().filter((row) => /^tag (a|b|same)$/.test(row))).toEqual(["tag a", "tag b", "tag same"]);
  expect(a.rows().filter((row) => row.startsWith("note 8 "))).toEqual([]);
  expect(a.rows()).toContain("note 10 'b'00.0");
});

test("what was written in several openings since a peer was met is in doubt, all of it", async () => {
  const [x, other] = await history();
  await x.start();
  await x.meet(other);
  const { site, own: certain } = await x.store.state();
  for (const name of ["1", "2", "3"]) {
    await x.start();
    await x.exec(`INSERT INTO tag VALUES ('${name}')`);
  }
  expect((await x.renew()).reasserted).toBe(3);
  expect((await x.store.state()).vector.get(site)).toBe(certain);
  await x.start(); // nobody else has the new site's numbers
  expect((await x.renew()).reasserted).toBe(0);
  // Once a peer was met, the next opening is the one that counts: one that was served, too.
  for (const meet of [() => x.meet(other), () => other.meet(x)]) {
    await x.start();
    await x.exec("INSERT INTO tag VALUES (hex(randomblob(9)))");
    await meet();
    await x.start();
    expect((await x.renew()).reasserted).toBe(0);
  }
});

test("a database that knows as many sites as peers take keeps its own, and says what to do", async () => {
  const [x] = await history();
  await x.start();
  const fill = `INSERT INTO crmesh_vector WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i)
    SELECT randomblob(16), 1 FROM i LIMIT ${MaxVectorSites - 1} - (SELECT count(*) FROM crmesh_vector)`;
  x.db().run(fill);
  const [content, { site }] = [x.content(), await x.store.state()];
  expect(await x.store.renew()).toEqual({ refused: expect.stringContaining("clear this site's data") });
  expect(x.content()).toEqual(content);
  expect((await x.store.state()).site).toBe(site);
  await x.exec("INSERT INTO tag VALUES ('goes on')");
  x.db().run("DELETE FROM crmesh_vector WHERE site = (SELECT min(site) FROM crmesh_vector)");
  await x.renew(); // the last place
  expect((await x.store.state()).vector.size).toBe(MaxVectorSites - 1);
});

const VALUES = ["NULL", "1", "2.0", "''", "x'00ff'", "'a'", "-1.5"];

function statement(rnd: () => number): string {
  const pick = (items: readonly string[]) => items[Math.floor(rnd() * items.length)] ?? "";
  const id = Math.floor(rnd() * 4);
  const [v, k, b] = [pick(VALUES), pick(["'k'", "''", "'ß'"]), pick(["1", "2.5"])];
  return pick([
    `INSERT INTO note (id, title) VALUES (${id}, ${v}) ON CONFLICT DO UPDATE SET title = excluded.title`,
    `UPDATE note SET title = ${v}, body = ${pick(VALUES)}`,
    `DELETE FROM note WHERE id = ${id}`,
    `INSERT OR REPLACE INTO pair VALUES (${k}, ${b}, ${v})`,
    `UPDATE pair SET "wert ä" = ${v} WHERE a = ${k}`,
    `DELETE FROM pair WHERE b = ${b}`,
    `INSERT OR IGNORE INTO tag VALUES (${k})`,
    `DELETE FROM tag WHERE name = ${k}`,
  ]);
}

const RUNS = Number(process.env.CRMESH_RUNS ?? 12);

describe("all become equal after copies and rollbacks", () => {
  for (let seed = 1; seed <= RUNS; seed++) {
    test(`seed ${seed}`, async () => {
      const rnd = random(seed);
      const peers: [Peer, Peer, Peer, ...Peer[]] = [
        await Peer.fresh(),
        await Peer.fresh(),
        await Peer.fresh(),
      ];
      const write = async (p: Peer, most: number) => {
        for (let n = Math.floor(rnd() * most); n > 0; n--) await p.exec(statement(rnd));
      };
      for (let i = 0; i < 12; i++) {
        for (const p of peers) await write(p, 4);
        const [a, b] = [peers[i % 3], peers[(i + 1 + Math.floor(rnd() * 2)) % 3]] as [Peer, Peer];
        await b.meet(a);
      }
      const [x, other] = peers;
      const backup = x.kept.copy();
      if (rnd() < 0.5) {
        peers.push(await Peer.on(x.kept.copy())); // its twin
        await x.start();
        await write(x, 8);
      } else {
        for (let i = 0; i < 9; i++) await x.exec(`INSERT INTO tag VALUES ('lost ${i}')`);
        await other.meet(x);
        await x.start(backup);
      }
      const disputed = [x, ...peers.slice(3)];
      for (const p of disputed) {
        await write(p, 8);
        await p.exec(`INSERT INTO tag VALUES ('of ${disputed.indexOf(p)}')`);
      }
      await expect(x.meet(peers[3] ?? other)).rejects.toThrow("disputed");
      for (const p of disputed) {
        const rows = p.rows();
        await p.renew();
        expect(p.rows()).toEqual(rows);
        await write(p, 3);
      }
      await meetAll(...peers);
      for (const p of peers) {
        expect(p.content()).toEqual(x.content());
        expect(p.rows()).toEqual(expect.arrayContaining(disputed.map((_, i) => `tag of ${i}`)));
      }
    });
  }
});
