// A link from Chromium to bin/peer that is forced over a real coturn.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Coturn, turnSecret, withoutCoturn } from "../coturn.ts";
import { freePort, Program } from "../e2e/process.ts";
import { Replica } from "../e2e/replica.ts";
import { ClientLab, exec, linked, query, SOON, settled, status } from "./lab.ts";
import type { Harness } from "./page.ts";

declare const harness: Harness;

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const all = "SELECT id, length(v) FROM t ORDER BY id";
const size = 200_000;

let dir: string;
let turn: Coturn;
let lab: ClientLab;
const programs: Program[] = [];

/** The credentials that the signaling server hands out are good for so long. */
const ttl = 4;

async function relayed(page: Page, room: string): Promise<void> {
  await page.evaluate((room) => harness.open({ room, relayOnly: true }), room);
}

describe.skipIf(withoutCoturn)("with a TURN server", () => {
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "crmesh-turn-"));
    turn = await Coturn.start(await freePort());
    lab = await ClientLab.start("turn", ...turnFlags(turnSecret), "--turn-ttl", `${ttl}s`);
  });

  afterAll(async () => {
    for (const program of programs) await program.stop();
    await lab?.stop();
    await turn?.kill();
    rmSync(dir, { recursive: true, force: true });
  });

  test("a page and a replica sync over relays only", async () => {
    const context = await lab.context();
    const page = await lab.tab(context);
    const { write = "" } = await lab.createRoom(page);
    const schema = join(dir, "schema.sql");
    writeFileSync(schema, "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t');");
    const api = `127.0.0.1:${await freePort()}`;
    const args = ["--db", join(dir, "replica.db"), "--room", write, "--schema", schema, "--api", api];
    const peer = new Program("peer", ["run", ...args, "--relay-only"]);
    programs.push(peer);
    await peer.ready(`http://${api}/v1/status`);
    const replica = new Replica(peer, `http://${api}`);

    await relayed(page, write);
    await linked(page, 1);
    await replica.exec("INSERT INTO t VALUES (1, ?)", "a".repeat(size));
    await settled([page], all, [[1n, BigInt(size)]]);
    await exec(page, "INSERT INTO t VALUES (2, ?)", "b".repeat(size));
    await expect.poll(() => replica.query("SELECT count(*) FROM t"), { timeout: SOON }).toEqual([[2]]);
    expect(await page.evaluate(() => harness.localCandidates())).toEqual(["relay"]);
    await expect
      .poll(async () => (await replica.status()).members.map((m) => m.path?.local), { timeout: SOON })
      .toEqual(["relay"]);

    // The credentials end, the relays go: the same link goes on over new ones. Where the machine is too busy for that, it is built anew
    // after 8 s, and looked at once more.
    for (let round = 1; ; round++) {
      const made = await page.evaluate(() => harness.madeChannels());
      const last = Math.max(...turn.expiries);
      await expect.poll(() => Date.now() / 1000 > last + 1, { timeout: SOON }).toBe(true);
      const { port } = turn;
      await turn.kill();
      turn = await Coturn.start(port);
      await exec(page, "INSERT INTO t VALUES (?, ?)", BigInt(2 + round), "c".repeat(size));
      await expect
        .poll(() => replica.query("SELECT count(*) FROM t"), { timeout: SOON })
        .toEqual([[2 + round]]);
      expect(Math.min(...turn.expiries)).toBeGreaterThan(last);
      if ((await page.evaluate(() => harness.madeChannels())) === made) break;
      expect(round, "how often the link was built anew").toBeLessThan(6);
    }

    await page.evaluate(() => harness.client?.close());
    await peer.stop();
    await expect.poll(() => turn.received, { timeout: SOON }).toBeGreaterThan(size);
    await context.close();
  });

  test("a page says that no TURN server gives a relay", async () => {
    const port = await freePort();
    const signal = new Program("signal", [
      ...["--listen", `127.0.0.1:${port}`, "--stun", "off", "--allow-origin", "*"],
      ...turnFlags("another secret"),
    ]);
    programs.push(signal);
    await signal.ready(`http://127.0.0.1:${port}/healthz`);
    const contexts = [await lab.context(), await lab.context()] as const;
    const page = await lab.tab(contexts[0]);
    const { write = "" } = await page.evaluate(
      (base) => harness.createRoom(base),
      `http://127.0.0.1:${port}/`,
    );
    await relayed(page, write);
    const other = await lab.open(contexts[1], write);
    await expect
      .poll(async () => (await status(page)).members.map((m) => m.error), { timeout: SOON })
      .toEqual([expect.stringContaining("no TURN server gave one")]);
    expect(await query(other, "SELECT 1")).toEqual([[1n]]);
    for (const context of contexts) await context.close();
  });
});

function turnFlags(secret: string): string[] {
  return ["--turn-url", `turn:127.0.0.1:${turn.port}`, "--turn-secret", secret];
}
