// A browser whose storage was put back to an older state, and two with the same: they rejoin a Go peer under new site ids, and
// nothing is lost.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BrowserContext, ConsoleMessage, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseLink } from "../../src/signaling/link.ts";
import type { StorageKind } from "../../src/worker/protocol.ts";
import { equal, exec, Lab, SOON } from "./lab.ts";
import type { Replica, VerifyReport } from "./replica.ts";
import { put, take } from "./storage.ts";

const columns = ["id", "v"];

let lab: Lab;
let replica: Replica;
let database: string;

beforeAll(async () => {
  lab = await Lab.start();
  const schema = join(lab.dir, "schema.sql");
  writeFileSync(schema, "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t');");
  await lab.signal();
  replica = await lab.replica(schema);
  database = `room-${(await parseLink(lab.link)).keys.room}`;
});

// Also when a test fails: the next one counts the members of the room.
afterEach(() => lab.closeBrowsers());
afterAll(() => lab?.stop());

/** A tab of the origin with no database open. */
async function aside(browser: BrowserContext): Promise<Page> {
  const page = await browser.newPage();
  await page.goto(`${lab.base}healthz`);
  return page;
}

/** Makes a browser keep its database in `kind` of storage: it stays where it was made. */
async function keepIn(page: Page, kind: StorageKind): Promise<void> {
  if (kind === "indexeddb") await put(page, kind, database, { parts: [], size: 0 });
}

/** Opens the room in a tab; `lines` are what its console says of site ids. */
async function open(browser: BrowserContext): Promise<{ page: Page; lines: () => string[] }> {
  const said: ConsoleMessage[] = [];
  browser.on("console", (message) => said.push(message));
  const page = await lab.page(browser);
  await page.getByTestId("tab-t").waitFor({ timeout: SOON });
  const lines = () => said.filter((m) => m.page() === page && /site id/.test(m.text())).map((m) => m.text());
  return { page, lines };
}

const site = (page: Page) => page.evaluate(() => window.crmesh?.status().site);

let rows = 0;

async function add(page: Page, ...ids: string[]): Promise<void> {
  for (const id of ids) await exec(page, "INSERT INTO t VALUES (?, 1)", id);
  rows += ids.length;
}

/** All the room holds the same rows, as many as were ever written, and a digest says so. */
async function whole(...pages: Page[]): Promise<void> {
  await equal([replica, ...pages], "t", columns, rows);
  let report: VerifyReport | undefined;
  await expect
    .poll(
      async () => {
        report = await replica.verify({});
        return report.identical === new Set(await Promise.all(pages.map(site))).size;
      },
      { timeout: SOON, interval: 100 },
    )
    .toBe(true)
    .catch((error) => {
      throw new Error(`not all were found identical: ${JSON.stringify(report)}`, { cause: error });
    });
}

describe.each<StorageKind>(["opfs", "indexeddb"])("on %s", (kind) => {
  it("a database that was put back rejoins under a new site id, and its other tabs are not disturbed", async () => {
    const browser = await lab.browser();
    const desk = await aside(browser);
    await keepIn(desk, kind);
    let { page } = await open(browser);
    expect(await page.evaluate(() => window.crmesh?.status().storage)).toBe(kind);
    await add(page, `${kind} before`, `${kind} x`);
    await whole(page);
    const old = await site(page);
    await page.close();
    const backup = await take(desk, kind, database);

    ({ page } = await open(browser));
    // More commits than are made below before somebody is met: else nobody could tell.
    await add(page, ...Array.from({ length: 20 }, (_, i) => `${kind} lost ${i}`));
    await exec(page, "UPDATE t SET v = 'lost' WHERE id = ?", `${kind} before`);
    await whole(page);
    expect(await site(page)).toBe(old);
    await page.close();
    await put(desk, kind, database, backup);
    await replica.program.stop();

    // With nobody there who knows better, numbers are used again.
    const leader = await open(browser);
    await add(leader.page, `${kind} new`);
    await exec(leader.page, "UPDATE t SET v = 'new' WHERE id = ?", `${kind} x`);
    const follower = await open(browser);
    await add(follower.page, `${kind} new, of the other tab`);
    expect(await site(leader.page)).toBe(old);
    const writing = add(follower.page, ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => `${kind} on and on ${i}`));
    replica = await lab.replica();
    await writing;
    await expect.poll(() => site(leader.page), { timeout: SOON }).not.toBe(old);
    await add(leader.page, `${kind} after`);
    await add(follower.page, `${kind} after, of the other tab`);
    await whole(leader.page, follower.page);
    expect(
      await replica.query("SELECT v FROM t WHERE id IN (?, ?) ORDER BY id", `${kind} before`, `${kind} x`),
    ).toEqual([["lost"], ["new"]]);

    // It is told: by one line in the log, and to the person in plain words.
    const now = await site(leader.page);
    await expect
      .poll(() => [...leader.lines(), ...follower.lines()], { timeout: SOON })
      .toEqual([
        expect.stringMatching(
          `^the database goes on under a new site id: a peer has seen writes .*; old=${old} new=${now} `,
        ),
      ]);
    for (const { page } of [leader, follower]) {
      await expect
        .poll(() => page.getByTestId("problem-renewed").textContent(), { timeout: SOON })
        .toContain("Nothing that it held is lost");
    }
    expect(await site(follower.page)).toBe(now);
    // It stays so.
    await leader.page.close();
    await add(follower.page, `${kind} by the one that is left`);
    await whole(follower.page);
    expect(await site(follower.page)).toBe(now);
  });

  it("two browsers with the same files each get an id of their own, and all rows", async () => {
    const [one, two] = [await lab.browser(), await lab.browser()];
    const [desk, other] = [await aside(one), await aside(two)];
    await keepIn(desk, kind);
    const first = await open(one);
    await add(first.page, `${kind} before the copy`);
    await whole(first.page);
    await first.page.close();
    await put(other, kind, database, await take(desk, kind, database));

    await replica.program.stop();
    const [a, b] = [await open(one), await open(two)];
    await add(a.page, `${kind} of one`);
    await add(b.page, `${kind} of two`);
    replica = await lab.replica();
    await whole(a.page, b.page);
    expect(await site(a.page)).not.toBe(await site(b.page));
    for (const { lines } of [a, b]) expect(lines().length).toBeLessThanOrEqual(1);
    await expect.poll(() => a.lines().length + b.lines().length, { timeout: SOON }).toBeGreaterThan(0);
  });
});
