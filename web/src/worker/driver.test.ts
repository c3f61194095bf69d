// Two drivers with real databases in memory, whose links are arrays.

import { afterEach, expect, test } from "vitest";
import { StorageError } from "../engine/errors.ts";
import { memoryStore } from "../engine/testing/memory.ts";
import { parse } from "../syncproto/codec.ts";
import { CodeMalformed, codeName } from "../syncproto/errors.ts";
import { ProofLen, TypeChanges, TypeErrorMessage } from "../syncproto/message.ts";
import type { ApplyRequest } from "../syncproto/ops.ts";
import { Driver, type DriverEvents, type DriverStatus } from "./driver.ts";
import type { AcceptSchema, Store } from "./store.ts";

/** A driver and what it has told. */
class Peer {
  driver!: Driver;
  store!: Store;
  other: Peer | undefined;
  cut = false;
  readonly closed: (string | undefined)[] = [];
  readonly changed: string[] = [];
  readonly notices: string[] = [];
  readonly failures: string[] = [];
  readonly sentTypes: number[] = [];
  status: DriverStatus | undefined;

  static async start(
    writer: boolean,
    wrap: (store: Store) => Store = (s) => s,
    accept?: AcceptSchema,
  ): Promise<Peer> {
    const peer = new Peer();
    peer.store = wrap((await memoryStore()).store);
    const options = { fullPause: 5, ...(accept !== undefined && { accept }) };
    peer.driver = await Driver.start(peer.store, writer, 7n, peer.events(), options);
    return peer;
  }

  /** A new driver on the same database, as after a reload. */
  async restart(writer: boolean): Promise<void> {
    this.driver = await Driver.start(this.store, writer, 8n, this.events());
  }

  private events(): DriverEvents {
    return {
      send: (link, bytes) => {
        this.sentTypes.push(bytes[0] ?? 0);
        const { other, cut } = this;
        if (!cut) queueMicrotask(() => other?.driver.message(link, bytes));
      },
      closeLink: (link, reason) => {
        this.closed.push(reason);
        this.driver.closed(link);
      },
      changed: (tables) => this.changed.push(...tables),
      status: (status) => {
        this.status = status;
      },
      notice: (sentence) => this.notices.push(sentence),
      renewed: () => {},
      failed: (error) => this.failures.push(error instanceof Error ? error.message : String(error)),
    };
  }
}

const peers: Peer[] = [];
let timer: ReturnType<typeof setInterval> | undefined;

async function start(writer = true, wrap?: (store: Store) => Store, accept?: AcceptSchema): Promise<Peer> {
  const peer = await Peer.start(writer, wrap, accept);
  peers.push(peer);
  timer ??= setInterval(() => {
    for (const p of peers) p.driver.tick(1);
  }, 2);
  return peer;
}

function link(a: Peer, b: Peer, id: number, writers: [boolean, boolean] = [true, true]): void {
  [a.other, b.other] = [b, a];
  a.driver.open(id, a.driver.site, b.driver.site, new Uint8Array(writers[0] ? ProofLen : 0));
  b.driver.open(id, b.driver.site, a.driver.site, new Uint8Array(writers[1] ? ProofLen : 0));
}

afterEach(async () => {
  clearInterval(timer);
  timer = undefined;
  for (const p of peers.splice(0)) await p.driver.stop();
});

let ids = 0;
const exec = (p: Peer, sql: string) => p.driver.exec(`id ${ids++}`, sql, []);
const schema = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')";

async function holds(p: Peer, sql: string, rows: unknown[][]): Promise<void> {
  const got = () =>
    p.driver.query(sql, []).then(
      (r) => r.rows,
      (e: Error) => e.message,
    );
  await expect.poll(got, { interval: 5 }).toEqual(rows);
}

test("schema and rows go to one that has nothing, both are told of the tables, and both are synced", async () => {
  const [a, b] = [await start(), await start()];
  link(a, b, 1);
  await exec(a, schema);
  await exec(a, "INSERT INTO t VALUES (1, 2.0), (2, x'00ff')");
  await holds(b, "SELECT id, v, typeof(v) FROM t ORDER BY id", [
    [1n, 2, "real"],
    [2n, new Uint8Array([0, 255]), "blob"],
  ]);
  await exec(b, "DELETE FROM t WHERE id = 1");
  await holds(a, "SELECT id FROM t", [[2n]]);
  expect(a.changed).toContain("t");
  expect(b.changed).toContain("t");
  for (const p of [a, b]) {
    await expect.poll(() => p.status?.synced).toBe(true);
    expect(p.status?.links[0]).toMatchObject({ live: true, writer: true, schema: expect.any(Boolean) });
    expect(p.failures).toEqual([]);
  }
});

test("a table that this engine refuses costs no other, and is told of", async () => {
  const a = await start(true, (store) => {
    const own = store.schema.bind(store);
    store.schema = async () => [
      { name: "s p", sql: 'CREATE TABLE "s p" (id INTEGER PRIMARY KEY NOT NULL)', columns: [] },
      ...(await own()),
    ];
    return store;
  });
  const b = await start();
  link(a, b, 1);
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await holds(b, "SELECT v FROM t", [["x"]]);
  expect(b.notices.filter((n) => n.includes("s p"))).toHaveLength(1);
  expect(b.failures).toEqual([]);
});

test("a reader is refused its own writes, and receives", async () => {
  const [a, b] = [await start(), await start(false)];
  link(a, b, 1, [true, false]);
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await holds(b, "SELECT v FROM t", [["x"]]);
  await expect(exec(b, "DELETE FROM t")).rejects.toThrow("this is a read link");
  await holds(a, "SELECT v FROM t", [["x"]]);
  expect(b.sentTypes).not.toContain(TypeChanges);
});

test("bytes that are no message cost that link, and are answered with an error", async () => {
  const [a, b] = [await start(), await start()];
  link(a, b, 1);
  await expect.poll(() => a.status?.links[0]?.live).toBe(true);
  const errors: string[] = [];
  b.driver.message = (_, bytes) => {
    const m = parse(bytes);
    if (m.type === TypeErrorMessage) errors.push(codeName(m.code));
  };
  a.driver.message(1, new Uint8Array([99]));
  expect(a.closed).toEqual(["a message has the unknown type 99"]);
  await expect.poll(() => errors).toEqual(["malformed"]);
  a.driver.refuse(1, CodeMalformed, "again"); // nothing is left to refuse
  expect(a.closed.length).toBe(1);
  await exec(a, schema);
  expect(a.failures).toEqual([]);
});

test("a broken link is resumed behind what was reached", async () => {
  const [a, b] = [await start(), await start()];
  link(a, b, 1);
  await exec(a, schema);
  for (let i = 0; i < 20; i++) await exec(a, `INSERT INTO t VALUES (${i}, 'v')`);
  await holds(b, "SELECT count(*) FROM t", [[20n]]);
  await expect.poll(() => b.status?.synced).toBe(true);
  a.driver.closed(1);
  b.driver.closed(1);
  await exec(a, "INSERT INTO t VALUES (100, 'v')");
  const before = b.status?.applied.changes ?? 0;
  await b.restart(true);
  link(a, b, 2);
  await holds(b, "SELECT count(*) FROM t", [[21n]]);
  await expect.poll(() => b.status?.applied.changes).toBe(1);
  expect(before).toBe(20);
});

test("nothing is said of rows that the store has not made durable", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const applies: ApplyRequest[] = [];
  const a = await start();
  const b = await start(true, (store) => {
    const apply = store.apply.bind(store);
    store.apply = async (r) => {
      const result = await apply(r);
      applies.push(r);
      await held;
      return result;
    };
    return store;
  });
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  link(a, b, 1);
  await expect.poll(() => applies.length).toBe(1);
  const behind = () => a.status?.links[0]?.inFlight;
  await expect.poll(behind).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 100)); // many ticks: a have would have been due
  expect(behind()).toBe(1);
  release();
  await expect.poll(behind).toBe(0);
});

test("a store that fails ends the driver, with the reason", async () => {
  const a = await start(true, (store) => {
    store.read = async () => {
      throw new Error("the disk is gone");
    };
    return store;
  });
  const b = await start();
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  link(a, b, 1);
  await expect.poll(() => a.failures).toEqual(["the disk is gone"]);
  const said = a.sentTypes.length;
  a.driver.tick(5);
  expect(a.sentTypes.length).toBe(said);
});

test("a table that cannot be created is told, and the link goes on", async () => {
  const [a, b] = [await start(), await start()];
  b.store.takeSchema = async () => ["no such thing"];
  link(a, b, 1);
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await expect.poll(() => b.notices.join()).toContain("no such thing");
  await expect.poll(() => b.status?.applied.parked).toBe(1);
  expect(b.closed).toEqual([]);
});

const note = (columns: string) =>
  `CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title${columns}); SELECT crsql_as_crr('note')`;

const alter = (column: string) =>
  `SELECT crsql_begin_alter('note'); ALTER TABLE note ADD COLUMN ${column}; SELECT crsql_commit_alter('note')`;

/** What the other side of a peer's only link has other than it. */
const differences = (p: Peer) => p.status?.links[0]?.differences;

test("a column that is missing is added, its values arrive, and both sides know that the schemas are equal", async () => {
  const [a, b] = [await start(), await start()];
  await exec(a, note(""));
  await exec(b, note(""));
  link(a, b, 1);
  await exec(a, alter("tags TEXT NOT NULL DEFAULT 'none'"));
  await exec(a, "INSERT INTO note VALUES (1, 'one', 'red')");
  await exec(b, "INSERT INTO note (id, title) VALUES (2, 'two')");
  for (const p of [a, b]) {
    await holds(p, "SELECT id, title, tags FROM note ORDER BY id", [
      [1n, "one", "red"],
      [2n, "two", "none"],
    ]);
    await expect.poll(() => p.status?.links[0]).toMatchObject({ schema: true, differences: [] });
    await expect.poll(() => p.status?.parked.changes).toBe(0);
  }
});

test("what was put aside is applied after a restart, too, if the tables fit by then", async () => {
  const [a, b] = [await start(), await start(true, undefined, "never")];
  await exec(a, schema);
  link(a, b, 1);
  await exec(a, "INSERT INTO t VALUES (1, 2)");
  await expect.poll(() => b.status?.parked.changes).toBe(1);
  b.cut = true;
  await b.store.exec("by nobody's driver", schema, []);
  await b.restart(true);
  await holds(b, "SELECT v FROM t", [[2n]]);
  await expect.poll(() => b.status?.parked.changes).toBe(0);
  expect((await b.store.state()).untried).toBe(false);
});

test("who accepts nothing keeps its tables, tells what differs, and applies what was put aside once its tables fit", async () => {
  const [a, b] = [await start(), await start(true, undefined, "never")];
  await exec(a, note(", tags"));
  await exec(a, schema);
  await exec(b, note(", own"));
  link(a, b, 1);
  await exec(a, "INSERT INTO note VALUES (1, 'one', 'red'); INSERT INTO t VALUES (1, 2)");
  await exec(b, "INSERT INTO note VALUES (2, 'two', 'mine')");
  await holds(b, "SELECT id, title, own FROM note ORDER BY id", [
    [1n, "one", null],
    [2n, "two", "mine"],
  ]);
  await holds(a, "SELECT title, own FROM note WHERE id = 2", [["two", "mine"]]);
  await expect
    .poll(() => differences(b))
    .toEqual(["note: column tags is missing here", "t: table is missing here"]);
  await expect
    .poll(() => differences(a))
    .toEqual(["note: column tags is missing there", "t: table is missing there"]);
  await expect
    .poll(() => b.status?.parked)
    .toMatchObject({
      changes: 2,
      tables: [
        { table: "note", reason: 'the table has no column "tags"', changes: 1 },
        { table: "t", reason: "there is no such table here", changes: 1 },
      ],
      more: 0,
    });
  // Whatever changes the tables, what waits for it is applied.
  await exec(b, alter("tags"));
  await holds(b, "SELECT tags FROM note WHERE id = 1", [["red"]]);
  await exec(b, schema);
  await holds(b, "SELECT v FROM t", [[2n]]);
  await expect.poll(() => b.status?.parked.changes).toBe(0);
  for (const p of [a, b]) {
    await expect.poll(() => p.status?.links[0]).toMatchObject({ schema: true, differences: [] });
  }
});

test("a reader's hash is told alone, and what it takes does not go back", async () => {
  const [a, b] = [await start(), await start(false)];
  link(a, b, 1, [true, false]);
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await holds(b, "SELECT v FROM t", [["x"]]);
  await expect.poll(() => a.status?.links[0]).toMatchObject({ schema: true, writer: false });
  expect(a.closed).toEqual([]);
});

test("where the storage is full, what others wrote waits until there is room, and all else goes on", async () => {
  let full = true;
  let tried = 0;
  const wrap = (store: Store) => {
    const { apply } = store;
    store.apply = (r: ApplyRequest) => {
      if (!full) return apply.call(store, r);
      tried++;
      return Promise.reject(new StorageError("full", "there is no room left", { passing: true }));
    };
    return store;
  };
  const [a, b] = [await start(), await start(true, wrap)];
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await exec(b, `${schema}; INSERT INTO t VALUES (2, 'y')`);
  link(a, b, 1);
  await expect.poll(() => tried).toBeGreaterThan(1);
  expect(b.notices.join()).toContain("there is no room left");
  await holds(b, "SELECT id FROM t", [[2n]]);
  await holds(a, "SELECT id FROM t", [[1n], [2n]]);
  full = false;
  await holds(b, "SELECT id FROM t", [[1n], [2n]]);
  expect(b.failures).toEqual([]);
});

test("a storage that failed for good ends it", async () => {
  const wrap = (store: Store) => {
    store.apply = () => Promise.reject(new StorageError("full", "there is no room left; reload"));
    return store;
  };
  const [a, b] = [await start(), await start(true, wrap)];
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await exec(b, schema);
  link(a, b, 1);
  await expect.poll(() => b.failures).toEqual(["there is no room left; reload"]);
});
