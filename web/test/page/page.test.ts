// The page in real Chromium over a client without a mesh: the grid, its keyboard, typed values, the SQL box.

import { mkdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { launchChromium } from "../chromium.ts";

const web = fileURLToPath(new URL("../..", import.meta.url));
const shots = process.env.SHOTS;
let server: ViteDevServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  server = await createServer({
    root: web,
    configFile: `${web}vite.config.ts`,
    logLevel: "error",
    server: { port: 0, host: "127.0.0.1", hmr: false, watch: null }, // a page that loads itself again would be lost
  });
  await server.listen();
  browser = await launchChromium();
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
});

beforeEach(async () => {
  await page?.close();
  page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  page.setDefaultTimeout(60_000);
  await page.goto(new URL("test/page/index.html", server.resolvedUrls?.local[0]).href);
  await page.waitForFunction(() => window.fake !== undefined);
});

const schema = `CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, i INTEGER, r REAL, s TEXT, b BLOB);
SELECT crsql_as_crr('t');`;

async function exec(sql: string): Promise<void> {
  await page.evaluate((text) => window.fake.exec(text), sql);
}

async function value(sql: string): Promise<string> {
  return page.evaluate(async (text) => String((await window.fake.query(text)).rows[0]?.[0]), sql);
}

function cell(key: string, column: string) {
  return page.locator(`[data-testid=row][data-key="${key}"] [data-column="${column}"]`);
}

async function shot(name: string): Promise<void> {
  if (shots === undefined) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: `${shots}/${name}.png` });
}

describe("the grid", () => {
  it("edits a cell in place and keeps its type", async () => {
    await exec(`${schema} INSERT INTO t VALUES (1, 9007199254740993, 2.0, 'one', x'00ff');`);
    await expect.poll(() => cell("1", "i").textContent()).toBe("9007199254740993");
    expect(await cell("1", "r").textContent()).toBe("2.0");

    await cell("1", "i").dblclick();
    await page.getByTestId("cell-input").fill("9007199254740995");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT typeof(i) || i FROM t")).toBe("integer9007199254740995");

    await cell("1", "r").dblclick();
    await page.getByTestId("cell-input").fill("3");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT typeof(r) || r FROM t")).toBe("real3.0");

    await cell("1", "s").dblclick();
    await page.getByTestId("cell-kind").selectOption("NULL");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT typeof(s) FROM t")).toBe("null");
    await expect.poll(() => cell("1", "s").textContent()).toBe("NULL");

    await cell("1", "b").dblclick();
    await page.getByTestId("cell-input").fill("");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT typeof(b) || length(b) FROM t")).toBe("blob0");
  });

  it("says what is wrong with a value, and stays open", async () => {
    await exec(`${schema} INSERT INTO t VALUES (1, 5, NULL, NULL, NULL);`);
    await cell("1", "i").dblclick();
    await page.getByTestId("cell-input").fill("five");
    await page.keyboard.press("Enter");
    await page.getByText("An INTEGER has digits only").waitFor();
    expect(await page.getByTestId("cell-input").getAttribute("aria-invalid")).toBe("true");
    await page.keyboard.press("Escape");
    expect(await value("SELECT i FROM t")).toBe("5");
  });

  it("leaves what was opened and not changed as it was", async () => {
    await exec(`${schema} INSERT INTO t VALUES (1, NULL, NULL, 'a' || char(0) || char(13) || 'b', NULL);`);
    await expect.poll(() => cell("1", "s").textContent()).toBe("a␀␍b");
    for (const column of ["i", "s", "b"]) {
      await cell("1", column).dblclick();
      await page.getByTestId("cell-input").waitFor();
      await page.keyboard.press("Enter");
      await page.getByTestId("cell-input").waitFor({ state: "detached" });
    }
    expect(await value("SELECT typeof(i) || hex(s) || typeof(b) FROM t")).toBe("null61000D62null");
  });

  it("works with the keyboard alone", async () => {
    await exec(`${schema} INSERT INTO t(id, s) VALUES (1, 'one'), (2, 'two'), (3, 'three');`);
    await cell("3", "s").waitFor();
    // Tab from the top of the page reaches the grid once, at its one cell in the tab order.
    for (let presses = 0; presses < 30; presses++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement?.getAttribute("data-cell") === "0-0")) break;
    }
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("F2");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("zwei");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT s FROM t WHERE id = 2")).toBe("zwei");
    await page.getByTestId("cell-input").waitFor({ state: "detached" });
    // The focus is back in the cell, and End goes to the row's delete button, which asks first.
    await page.keyboard.press("End");
    await page.keyboard.press("Enter");
    expect(await value("SELECT count(*) FROM t")).toBe("3");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT group_concat(id) FROM t")).toBe("1,3");
  });

  it("adds a row, with defaults for what is left empty", async () => {
    await exec(
      "CREATE TABLE n (a TEXT NOT NULL, b INTEGER NOT NULL, c TEXT NOT NULL DEFAULT 'x', PRIMARY KEY (a, b)); SELECT crsql_as_crr('n');",
    );
    await page.getByTestId("tab-n").click();
    await page.getByTestId("add-row").click();
    await page.keyboard.type("Zürich");
    await page.keyboard.press("Tab");
    await page.keyboard.type("7");
    await page.keyboard.press("Enter");
    await expect.poll(() => value("SELECT a || b || c FROM n")).toBe("Zürich7x");
    await expect.poll(() => page.getByTestId("row-count").getAttribute("data-count")).toBe("1");
    await page.getByLabel("b integer").fill("no number");
    await page.keyboard.press("Enter");
    await page.getByText("b: An INTEGER has digits only").waitFor();
    expect(await value("SELECT count(*) FROM n")).toBe("1");
  });

  it("pages through many rows and cuts long values", async () => {
    await exec(`${schema}
      WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000)
        INSERT INTO t(id, s) SELECT x, 'row ' || x FROM n;
      UPDATE t SET b = zeroblob(10000000) WHERE id = 1;`);
    await expect.poll(() => page.getByTestId("row-count").getAttribute("data-count")).toBe("20000");
    await expect.poll(() => cell("1", "b").textContent()).toContain("blob 10.0 MB");
    expect(await page.getByTestId("row").count()).toBe(100);
    await page.getByLabel("Last page").click();
    await cell("20000", "s").waitFor();
    await page
      .getByRole("button", { name: /^keyid|^id/ })
      .first()
      .click();
    await page
      .getByRole("button", { name: /^keyid|^id/ })
      .first()
      .click();
    await expect.poll(() => page.getByTestId("row").first().getAttribute("data-key")).toBe("20000");
  });

  it("changes nothing for a reader", async () => {
    await exec(`${schema} INSERT INTO t(id, s) VALUES (1, 'one');`);
    await page.evaluate(() => window.fake.setStatus({ writer: false }));
    await page.getByTestId("problem-reader").waitFor();
    await cell("1", "s").dblclick();
    await page.getByText("the data cannot be changed here").waitFor();
    expect(await page.getByTestId("cell-input").count()).toBe(0);
    expect(await page.getByTestId("add-row").count()).toBe(0);
    expect(await page.getByTestId("delete-row").count()).toBe(0);
  });
});

describe("a room that does not open", () => {
  it("says after 10 s that it takes unusually long, and offers to load the page again", async () => {
    await page.clock.install({ time: 0 });
    await page.clock.pauseAt(1_000);
    await page.goto(`${page.url()}?opening`);
    await page.getByText("Opening the database").waitFor();
    const hint = page.getByTestId("opening-late");
    await page.clock.runFor(9_999);
    expect(await hint.count()).toBe(0);
    await page.clock.runFor(1);
    await hint.getByText("The connection or the server may be the cause").waitFor();
    await page.evaluate(() => Object.assign(window, { before: true }));
    await page.getByRole("button", { name: "Load the page again" }).click();
    await page.waitForFunction(() => !("before" in window), undefined, { polling: 50 });
  });
});

describe("the SQL box", () => {
  it("shows rows, changes and errors", async () => {
    await exec(`${schema} INSERT INTO t(id, s) VALUES (1, 'one'), (2, NULL);`);
    await page.getByTestId("tab-sql").click();
    const outcome = page.getByTestId("sql-outcome");
    await page.getByTestId("sql-input").fill("SELECT id, s FROM t ORDER BY id");
    await page.keyboard.press("Control+Enter");
    await expect.poll(() => page.getByTestId("sql-result").locator("tbody").textContent()).toBe("1one2NULL");
    await page.getByTestId("sql-input").fill("UPDATE t SET i = 1");
    await page.getByTestId("sql-run").click();
    await expect.poll(() => outcome.textContent()).toContain("2 rows changed");
    await page.getByTestId("sql-input").fill("SELEC 1");
    await page.getByTestId("sql-run").click();
    await expect.poll(() => page.getByTestId("sql-error").textContent()).toContain("syntax error");
  });
});

describe("the look", () => {
  const quiet = {
    role: undefined,
    bytesIn: 0,
    bytesOut: 0,
    changesIn: 0,
    changesOut: 0,
    remaining: 0,
    unsent: 0,
    sameSchema: true,
    schemaDifference: [],
    roundTrip: undefined,
    error: undefined,
    stage: "",
    replica: false,
  };
  const members = [
    { ...quiet, peer: "a1b2c3d4", name: "replica-1", replica: true, state: "open", roundTrip: 0.6 },
    {
      ...quiet,
      peer: "b1b2c3d4",
      name: "Chrome on Android",
      state: "connecting",
      stage: "looking for a way through the network",
    },
    {
      ...quiet,
      peer: "c1b2c3d4",
      name: "",
      state: "failed",
      error: "no way through the network was found; a firewall or router is in between; trying again",
    },
  ] as const;

  it.each([360, 1280])("fits %i px without scrolling sideways", async (width) => {
    await page.setViewportSize({ width, height: 800 });
    await exec(readFileSync(new URL("../../../.cache/sample/sample.sql", import.meta.url), "utf8"));
    await page.evaluate((m) => {
      window.fake.setStatus({ members: m, synced: false, received: 21_400, remaining: 14_200 });
    }, members);
    await expect.poll(() => page.getByTestId("row").count()).toBe(100);
    await shot(`grid-${width}`);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await page.getByTestId("invite").click();
    await page.getByTestId("peers").evaluate((box: HTMLDetailsElement) => {
      box.open = true;
    });
    await page.getByTestId("add-row").click();
    await shot(`open-${width}`);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.getByTestId("add-row").click();
    await page.getByTestId("invite").click();
    await page.locator("[data-column=name]").first().dblclick();
    await shot(`dark-${width}`);
    await page.keyboard.press("Escape");
    await page.getByTestId("tab-sql").click();
    await page
      .getByTestId("sql-input")
      .fill("SELECT country, count(*), sum(population) FROM cities GROUP BY 1 ORDER BY 3 DESC LIMIT 12");
    await page.keyboard.press("Control+Enter");
    await page.getByTestId("sql-result").waitFor();
    await shot(`sql-${width}`);
  });
});
