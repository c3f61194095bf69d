import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { StorageKind } from "../../src/engine/open.ts";
import { Chromium } from "./chromium.ts";
import type { Harness } from "./page.ts";
import type { Call } from "./worker.ts";

vi.setConfig({ testTimeout: 120_000 });

declare const harness: Harness;

let server: ViteDevServer;
let browser: Chromium;
let url: string;

beforeAll(async () => {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const cacheDir = fileURLToPath(new URL("../../node_modules/.vite-engine-test", import.meta.url));
  server = await createServer({
    root,
    cacheDir,
    logLevel: "error",
    server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
  });
  await server.listen();
  url = `${server.resolvedUrls?.local[0]}test/engine/index.html`;
  browser = await Chromium.start();
});

afterAll(async () => {
  await browser?.dispose();
  await server?.close();
});

async function open(): Promise<Page> {
  const page = await browser.page(url);
  await page.waitForFunction(() => "harness" in globalThis);
  return page;
}

async function openPrivate(): Promise<Page> {
  const page = await browser.privatePage(url);
  await page.waitForFunction(() => "harness" in globalThis);
  return page;
}

async function reload(page: Page): Promise<void> {
  await page.reload();
  await page.waitForFunction(() => "harness" in globalThis);
}

const start = (page: Page, worker: string) => page.evaluate((w) => harness.start(w), worker);

function call<T>(page: Page, worker: string, method: Call["method"], ...args: unknown[]): Promise<T> {
  return page.evaluate(([w, m, a]) => harness.call(w, m, ...a), [
    worker,
    method,
    args,
  ] as const) as Promise<T>;
}

/** Has a worker write for ever, and returns once it acknowledged `n` more rows than there were. */
async function writing(
  page: Page,
  worker: string,
  n: number,
  how: "writeForEver" | "renewForEver" = "writeForEver",
): Promise<void> {
  const { max } = await call<{ max: number }>(page, worker, "count");
  await page.evaluate(([w, m]) => void harness.call(w, m).catch(() => {}), [worker, how] as const);
  await page.waitForFunction(([w, to]) => harness.acked(w) >= to, [worker, max + n] as const, { polling: 5 });
}

async function expectNothingLost(page: Page, worker: string, acked: number): Promise<void> {
  const { count, max, own, integrity } = await call<
    Record<"count" | "max" | "own", number> & { integrity: string }
  >(page, worker, "count");
  expect(integrity).toBe("ok");
  expect(max).toBeGreaterThanOrEqual(acked);
  expect(count).toBe(max);
  expect(own).toBe(max);
}

describe.each<StorageKind>(["opfs", "indexeddb"])("on %s", (kind) => {
  test("every kind of value survives, in memory and after a reload", async () => {
    const page = await open();
    await start(page, "a");
    const site = await call<string>(page, "a", "open", `values ${kind}`, kind);
    expect(site).toMatch(/^[0-9a-f]{32}$/);
    await call(page, "a", "writeValues");
    expect(await call(page, "a", "wrongValues")).toStrictEqual([]);
    await reload(page);
    await start(page, "a");
    expect(await call(page, "a", "open", `values ${kind}`)).toBe(site);
    expect(await call(page, "a", "wrongValues")).toStrictEqual([]);
    await call(page, "a", "close");
    await call(page, "a", "open", `values ${kind}`);
    expect(await call(page, "a", "wrongValues")).toStrictEqual([]);
    await page.close();
  });

  test("nothing acknowledged is lost when the worker is terminated, or the page reloaded", async () => {
    const page = await open();
    const name = `durable ${kind}`;
    await start(page, "0");
    await call(page, "0", "open", name, kind);
    for (let i = 0; i < 6; i++) {
      await writing(page, `${i}`, 20);
      const acked = await page.evaluate((w) => harness.acked(w), `${i}`);
      if (i % 2 === 0) await page.evaluate((w) => harness.terminate(w), `${i}`);
      else await reload(page);
      await start(page, `${i + 1}`);
      await call(page, `${i + 1}`, "open", name, kind);
      await expectNothingLost(page, `${i + 1}`, acked);
    }
    await page.close();
  });

  test("the site id is the old one or the new one, and nothing is lost, wherever a renewal is killed", async () => {
    const page = await open();
    const name = `renewed ${kind}`;
    await start(page, "0");
    await call(page, "0", "open", name, kind);
    let [rows, renewals] = [0, 0];
    for (let i = 0; i < 8; i++) {
      // It is killed right behind a row that a renewal follows.
      await writing(page, `${i}`, 4 - (rows % 2), "renewForEver");
      const acked = await page.evaluate((w) => harness.terminate(w), `${i}`);
      const next = `${i + 1}`;
      await start(page, next);
      await call(page, next, "open", name, kind);
      const found = await call<{ count: number; max: number; integrity: string }>(page, next, "count");
      expect(found).toMatchObject({ integrity: "ok", count: found.max });
      expect(found.max).toBeGreaterThanOrEqual(acked);
      const sites = await call<{ wrong: number; renewals: number }>(page, next, "sites");
      expect(sites.wrong).toBe(0);
      expect(sites.renewals).toBeGreaterThanOrEqual(renewals);
      [rows, { renewals }] = [found.max, sites];
    }
    expect(renewals).toBeGreaterThan(5);
    await page.close();
  });

  test("nothing acknowledged is lost when the browser is killed", async () => {
    const name = `killed ${kind}`;
    for (let i = 0; i < 2; i++) {
      let page = await open();
      await start(page, "a");
      await call(page, "a", "open", name, kind);
      await writing(page, "a", 50);
      const acked = await page.evaluate(() => harness.acked("a"));
      await browser.kill();
      await browser.run();
      page = await open();
      await start(page, "a");
      await call(page, "a", "open", name, kind);
      await expectNothingLost(page, "a", acked);
      await page.close();
    }
  });
});

// Chromium tells of it in two ways.
test.each(["profile", "private window"])(
  "on OPFS of a %s a full storage is told, and costs nothing",
  async (of) => {
    const page = of === "profile" ? await open() : await openPrivate();
    const cdp = await page.context().newCDPSession(page);
    const { origin } = new URL(url);
    const used = () => page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
    const allowMore = async (bytes: number) =>
      cdp.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: (await used()) + bytes });
    const allowAll = () => cdp.send("Storage.overrideQuotaForOrigin", { origin });
    try {
      await start(page, "first");
      await allowMore(60_000);
      await expect(call(page, "first", "open", "full", "opfs")).rejects.toThrow(
        "full: there is no room left",
      );
      await page.evaluate(() => harness.terminate("first"));
      await allowAll();
      await start(page, "second");
      await call(page, "second", "open", "full", "opfs");
      await call(page, "second", "write", 1);
      await allowMore(1_000_000);
      await expect(call(page, "second", "writeValues")).rejects.toThrow("full: there is no room left");
      await allowAll();
      await call(page, "second", "write", 2);
      expect(await call(page, "second", "count")).toMatchObject({ count: 2, max: 2, integrity: "ok" });
    } finally {
      await allowAll();
      await page.close();
    }
  },
);

test("on OPFS a second opener waits until the first is gone", async () => {
  const page = await open();
  await start(page, "first");
  await call(page, "first", "open", "shared", "opfs");
  await call(page, "first", "write", 1);
  await start(page, "second");
  const second = call(page, "second", "open", "shared", "opfs");
  await call(page, "first", "write", 2);
  await page.evaluate(() => harness.terminate("first"));
  await second;
  await expectNothingLost(page, "second", 2);
  await page.close();
});

test("on IndexedDB a second opener takes over, and the first can write no more", async () => {
  const page = await open();
  await start(page, "first");
  await call(page, "first", "open", "shared", "indexeddb");
  await call(page, "first", "write", 1);
  await start(page, "second");
  await call(page, "second", "open", "shared", "indexeddb");
  await expect(call(page, "first", "write", 2)).rejects.toThrow("busy: another tab has opened this database");
  await call(page, "second", "write", 2);
  await expectNothingLost(page, "second", 2);
  await page.close();
});

test("a database stays where it was made", async () => {
  const page = await open();
  for (const kind of ["indexeddb", "opfs"] as const) {
    await start(page, kind);
    const site = await call(page, kind, "open", `home ${kind}`, kind);
    await call(page, kind, "close");
    expect(await call(page, kind, "open", `home ${kind}`)).toBe(site);
  }
  await page.close();
});
