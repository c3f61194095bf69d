// The client library in real Chromium: pages linked through a real signaling server.

import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ClientLab, exec, linked, query, SOON, settled, status } from "./lab.ts";
import type { Harness } from "./page.ts";

declare const harness: Harness;

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const schema = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')";
const all = "SELECT id, v FROM t ORDER BY id";

let lab: ClientLab;

beforeAll(async () => {
  lab = await ClientLab.start("client");
});

afterAll(async () => {
  await lab?.stop();
});

test("two pages sync, with the signaling server and without", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const a = await lab.open(one, links.write ?? "", "a");
  await exec(a, schema);
  await exec(a, "INSERT INTO t VALUES (1, 'one'), (2, 2.0)");
  const b = await lab.open(two, links.write ?? "", "b");
  await settled([a, b], all, [
    [1n, "one"],
    [2n, 2],
  ]);
  await exec(b, "INSERT INTO t VALUES (?, ?)", 3n, new Uint8Array([0, 255]));
  await exec(a, "UPDATE t SET v = ? WHERE id = 1", 2n ** 60n + 1n);
  const want = [
    [1n, 2n ** 60n + 1n],
    [2n, 2],
    [3n, new Uint8Array([0, 255])],
  ];
  await settled([a, b], all, want);
  // The rows may be there before the picture that the status is taken from.
  await expect
    .poll(async () => (await status(b)).members, { timeout: SOON })
    .toMatchObject([{ name: "a", state: "open", role: "writer" }]);

  await lab.killSignal();
  await exec(b, "DELETE FROM t WHERE id = 2");
  await settled([a, b], all, [want[0] ?? [], want[2] ?? []]);
  await exec(a, "INSERT INTO t VALUES (2, 'again')");
  await settled([a, b], all, [want[0] ?? [], [2n, "again"], want[2] ?? []]);
  await lab.startSignal();
  await one.close();
  await two.close();
});

test("without the signaling server, a link that was lost comes back over another page", async () => {
  const contexts = await Promise.all([lab.context(), lab.context(), lab.context()]);
  const links = await lab.createRoom(await lab.tab(contexts[0]));
  const pages = [];
  for (const [i, name] of ["a", "b", "c"].entries()) {
    pages.push(await lab.open(contexts[i] ?? contexts[0], i === 2 ? links.read : (links.write ?? ""), name));
  }
  const [a, b] = pages;
  if (!a || !b) throw new Error("there are no pages");
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await settled(pages, all, [[1n, "x"]]);
  for (const page of pages) await linked(page, 2);
  await lab.killSignal();
  for (const page of pages) {
    await expect.poll(async () => (await status(page)).signal.state, { timeout: SOON }).not.toBe("joined");
  }
  // Each of them loses each of its links.
  for (const page of [...pages, ...pages]) {
    await page.evaluate(() => harness.cut());
    for (const p of pages) {
      await expect.poll(() => p.evaluate(() => harness.openChannels()), { timeout: SOON }).toBe(2);
      await linked(p, 2);
    }
  }
  await exec(b, "INSERT INTO t VALUES (2, 'y')");
  await settled(pages, all, [
    [1n, "x"],
    [2n, "y"],
  ]);
  await lab.startSignal();
  for (const context of contexts) await context.close();
});

test("tabs of one browser are one peer, and closing the leader costs nothing", async () => {
  const here = await lab.context();
  const there = await lab.context();
  const links = await lab.createRoom(await lab.tab(here));
  const leader = await lab.open(here, links.write ?? "", "tabs");
  const follower = await lab.open(here, links.write ?? "", "tabs");
  const other = await lab.open(there, links.write ?? "", "other");
  expect((await status(leader)).leader).toBe(true);
  expect((await status(follower)).leader).toBe(false);
  await exec(follower, schema);
  await exec(follower, "INSERT INTO t VALUES (1, 'from the follower')");
  await exec(leader, "INSERT INTO t VALUES (2, 'from the leader')");
  await settled([leader, follower, other], all, [
    [1n, "from the follower"],
    [2n, "from the leader"],
  ]);
  await linked(other, 1);
  expect((await status(other)).members.length).toBe(1);
  expect((await status(follower)).site).toBe((await status(leader)).site);

  // Writes are under way at the follower while the leader goes.
  const writes = follower.evaluate(async () => {
    for (let id = 100; id < 200; id++) await harness.exec("INSERT INTO t VALUES (?, 'burst')", BigInt(id));
  });
  await expect
    .poll(async () => (await query(follower, "SELECT count(*) FROM t"))[0]?.[0], { timeout: SOON })
    .toBeGreaterThan(20);
  await leader.close();
  await writes;
  // All writes may have been done before the leader was gone.
  await expect.poll(async () => (await status(follower)).leader, { timeout: SOON }).toBe(true);
  await settled([follower, other], "SELECT count(*) FROM t WHERE v = 'burst'", [[100n]]);
  await linked(other, 1);
  await here.close();
  await there.close();
});

test("a reader receives, and cannot write", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const writer = await lab.open(one, links.write ?? "", "writer");
  await exec(writer, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  const reader = await lab.open(two, links.read, "reader");
  await settled([reader], all, [[1n, "x"]]);
  await expect(exec(reader, "INSERT INTO t VALUES (2, 'y')")).rejects.toThrow("this is a read link");
  await expect
    .poll(async () => (await status(writer)).members, { timeout: SOON })
    .toMatchObject([{ role: "reader" }]);
  expect((await status(reader)).writer).toBe(false);
  await expect(lab.open(two, links.write ?? "")).rejects.toThrow("another tab with another link");
  await one.close();
  await two.close();
});

test("a link that falls silent is built anew, and a page that comes back finds its data", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const a = await lab.open(one, links.write ?? "", "a");
  const b = await lab.open(two, links.write ?? "", "b");
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'before')`);
  await settled([a, b], all, [[1n, "before"]]);
  await a.evaluate(() => harness.mute());
  await exec(a, "INSERT INTO t VALUES (2, 'in the silence of a')");
  await exec(b, "INSERT INTO t VALUES (3, 'in the silence of b')");
  await settled([a, b], "SELECT id FROM t ORDER BY id", [[1n], [2n], [3n]]);
  for (const page of [a, b]) {
    await expect.poll(() => page.evaluate(() => harness.liveConnections()), { timeout: SOON }).toBe(1);
  }

  await exec(a, "INSERT INTO t VALUES (4, 'last')");
  await b.close();
  const again = await lab.tab(two);
  const rows = await again.evaluate(async (room) => {
    await harness.open({ room, signal: ["http://127.0.0.1:9/"] }); // nobody listens there
    return await harness.query("SELECT count(*) FROM t");
  }, links.write ?? "");
  expect(Number(rows[0]?.[0])).toBeGreaterThanOrEqual(3);
  await one.close();
  await two.close();
});

test("a page that crashed and is opened again takes the place of what is left of it at once", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const a = await lab.open(one, links.write ?? "", "a");
  const b = await lab.open(two, links.write ?? "", "b");
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await settled([a, b], all, [[1n, "x"]]);
  const again = await lab.tab(two); // loaded before, as what is left is forgotten after 15 s
  await b.goto("chrome://crash").catch(() => {}); // no goodbye, no close of anything
  await again.evaluate((room) => harness.open({ room, name: "b" }), links.write ?? "");
  // It was in the status, until the server forgot what was left.
  await expect
    .poll(() => a.evaluate(() => [...harness.errors]), { timeout: SOON })
    .toContainEqual(expect.stringContaining("a newer connection of the same peer"));
  await linked(a, 1);
  await exec(again, "INSERT INTO t VALUES (2, 'y')");
  await settled([a], "SELECT id FROM t ORDER BY id", [[1n], [2n]]);
  await one.close();
  await two.close();
});

test("what is against the protocol costs that link only, and says so", async () => {
  const contexts = await Promise.all([lab.context(), lab.context(), lab.context()]);
  const links = await lab.createRoom(await lab.tab(contexts[0]));
  const a = await lab.open(contexts[0], links.write ?? "", "a");
  const b = await lab.open(contexts[1], links.write ?? "", "b");
  await linked(a, 1);
  await linked(b, 1); // only what is open there, too, takes what is injected
  await b.evaluate(() => harness.inject(new Uint8Array([1, 99])));
  await expect
    .poll(async () => (await status(a)).members, { timeout: SOON })
    .toMatchObject([{ name: "b", state: "failed", error: expect.stringContaining("unknown type 99") }]);
  const c = await lab.open(contexts[2], links.write ?? "", "c");
  await exec(c, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  await settled([a, b, c], all, [[1n, "x"]]);
  for (const context of contexts) await context.close();
});

test("a forged proof of the writer role makes no link", async () => {
  const one = await lab.context();
  const two = await lab.context();
  const links = await lab.createRoom(await lab.tab(one));
  const a = await lab.open(one, links.write ?? "", "a");
  await exec(a, `${schema}; INSERT INTO t VALUES (1, 'x')`);
  const forger = await lab.tab(two);
  await forger.evaluate(async (room) => {
    crypto.subtle.sign = async () => new Uint8Array(64).buffer;
    await harness.open({ room, name: "forger" });
  }, links.write ?? "");
  await expect
    .poll(async () => (await status(a)).members, { timeout: SOON })
    .toMatchObject([{ name: "forger", state: "failed", error: expect.stringContaining("does not verify") }]);
  await expect(query(forger, "SELECT * FROM t")).rejects.toThrow("no such table");
  await one.close();
  await two.close();
});

test("negotiation: crossing restarts, also with an offer that is lost, early candidates, a lost first offer", async () => {
  const context = await lab.context();
  const page = await lab.tab(context);
  expect(await page.evaluate(() => harness.crossingRestarts(100))).toBe(1);
  expect(await page.evaluate(() => harness.lostRestart())).toBe(1);
  await page.evaluate(() => harness.candidatesBeforeDescription());
  await page.evaluate(() => harness.lostOffer());
  await expect.poll(() => page.evaluate(() => harness.liveConnections()), { timeout: SOON }).toBe(0);
  await context.close();
});

test("a wrong link, a wrong statement and a wrong name are told in clear words", async () => {
  const context = await lab.context();
  const page = await lab.tab(context);
  const links = await lab.createRoom(page);
  const open = (room: string, name = "") =>
    page.evaluate(([r, n]) => harness.open({ room: r, name: n }), [room, name] as const);
  await expect(open(links.read.slice(0, -3))).rejects.toThrow("cut or mistyped");
  await expect(open(links.read, "x".repeat(65))).rejects.toThrow("at most 64 bytes");
  await open(links.write ?? "");
  await expect(exec(page, "INSERT INTO absent VALUES (1)")).rejects.toThrow("no such table: absent");
  await expect(query(page, "DELETE FROM absent")).rejects.toThrow();
  await expect(exec(page, "SELECT ?", 2n ** 63n)).rejects.toThrow("at most 64 bits");
  await page.evaluate(() => harness.client?.close());
  await expect(query(page, "SELECT 1")).rejects.toThrow("the client is closed");
  await open(links.write ?? ""); // what was closed can be opened again at once
  expect(await query(page, "SELECT 1")).toEqual([[1n]]);
  await context.close();
});
