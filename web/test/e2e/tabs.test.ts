// Several tabs of one browser are one peer; and a browser has its data with nobody else there.

import type { BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { equal, exec, Lab, opened, query, SOON } from "./lab.ts";
import type { Program } from "./process.ts";
import type { Replica } from "./replica.ts";

const columns = ["id", "text", "done"];

let lab: Lab;
let signal: Program;
let replica: Replica;
let browser: BrowserContext;
let first: Page;
let second: Page;

beforeAll(async () => {
  lab = await Lab.start();
  signal = await lab.signal();
  browser = await lab.browser();
  first = await lab.page(browser);
  // A room that begins in a browser: its table is made there.
  await first.getByTestId("first-table").click();
  await first.getByTestId("tab-notes").waitFor();
  replica = await lab.replica();
  second = await lab.page(browser);
});

afterAll(() => lab?.stop());

describe("two tabs of one browser", () => {
  it("are one peer", async () => {
    await second.getByTestId("tab-notes").waitFor({ timeout: SOON });
    await expect
      .poll(() => second.getByTestId("peer-count").getAttribute("data-open"), { timeout: SOON })
      .toBe("1");
    const { members } = await replica.status();
    expect(members.length).toBe(1);
  });

  it("both write, and both see each write", async () => {
    await exec(first, "INSERT INTO notes(id, text) VALUES ('1', 'by the first')");
    await exec(second, "INSERT INTO notes(id, text) VALUES ('2', 'by the second')");
    // The table came to the replica from the browser.
    await equal([first, second, replica], "notes", columns, 2);
    await replica.exec("INSERT INTO notes(id, text) VALUES ('3', 'by the replica')");
    await equal([first, second, replica], "notes", columns, 3);
    for (const page of [first, second]) {
      for (const text of ["by the first", "by the second", "by the replica"]) {
        await page.getByText(text).waitFor({ timeout: SOON });
      }
    }
  });

  it("lose nothing when the leading one is closed in the middle of writing", async () => {
    const acknowledged: string[] = [];
    const writing = (async () => {
      for (let i = 0; i < 100; i++) {
        const id = `while-${i}`;
        await exec(second, "INSERT INTO notes(id, text) VALUES (?, 'while the leader goes')", id);
        acknowledged.push(id);
      }
    })();
    await expect.poll(() => acknowledged.length, { timeout: SOON }).toBeGreaterThan(10);
    await first.close();
    await writing;
    expect(acknowledged.length).toBe(100);
    await equal([second, replica], "notes", columns, 103);
    // Each write was done once, and the tab is a peer of its own now: the replica still sees one member.
    await expect
      .poll(async () => (await replica.status()).members.filter((m) => m.live).length, { timeout: SOON })
      .toBe(1);
  });
});

describe("with no peer and no server", () => {
  it("a reload shows the data and takes writes", async () => {
    await replica.program.stop();
    // The page's own files are kept by the service worker, once it is ready.
    await second.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await signal.kill();
    await second.reload();
    await opened(second);
    await second.getByTestId("row").first().waitFor();
    await expect
      .poll(() => second.getByTestId("row-count").getAttribute("data-count"), { timeout: SOON })
      .toBe("103");
    await exec(second, "INSERT INTO notes(id, text) VALUES ('offline', 'kept')");
    await second.reload();
    await opened(second);
    expect(await query(second, "SELECT text FROM notes WHERE id = 'offline'")).toEqual([["kept"]]);
  });

  it("what was written offline arrives once peers are back", async () => {
    signal = await lab.signal();
    replica = await lab.replica();
    await equal([second, replica], "notes", columns, 104);
  });
});

describe("a wrong link", () => {
  it("is said in one sentence, where links are given", async () => {
    const page = await browser.newPage();
    await page.goto(`${lab.link.slice(0, -3)}`);
    await page.getByTestId("join-error").getByText("copy the whole link").waitFor();
    await page.close();
  });
});
