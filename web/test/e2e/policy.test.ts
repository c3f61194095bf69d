// The page under its Content-Security-Policy, the forms in which its files come, and one that never does.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { exec, Lab, opened, query, SOON } from "./lab.ts";

let lab: Lab;

beforeAll(async () => {
  lab = await Lab.start();
  await lab.signal();
});

afterAll(() => lab?.stop());

/** What the browser refuses a page and its workers, as it says so in the console. */
function refusals(page: Page): string[] {
  const list: string[] = [];
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) list.push(message.text());
  });
  return list;
}

async function linked(page: Page): Promise<void> {
  await expect
    .poll(() => page.getByTestId("peer-count").getAttribute("data-open"), { timeout: SOON })
    .toBe("1");
}

it("comes compressed, and is what was built", async () => {
  const dir = fileURLToPath(new URL("../../dist/assets/", import.meta.url));
  const names = readdirSync(dir).filter((name) => !/\.(br|gz)$/.test(name));
  expect(names.some((name) => name.endsWith(".wasm"))).toBe(true);
  for (const name of names) {
    for (const encoding of ["br", "gzip", ""]) {
      const response = await fetch(`${lab.base}assets/${name}`, { headers: { "Accept-Encoding": encoding } });
      expect(response.headers.get("content-encoding") ?? "").toBe(encoding);
      expect(Buffer.from(await response.arrayBuffer()).equals(readFileSync(dir + name))).toBe(true);
    }
  }
});

it("does all it does under its policy, kept for use without a server too", async () => {
  const context = await lab.browser();
  const ada = await context.newPage();
  const refused = refusals(ada);
  await ada.goto(lab.link);
  await opened(ada);
  const ben = await lab.page(await lab.browser());
  await exec(
    ada,
    "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT); SELECT crsql_as_crr('notes')",
  );
  await linked(ada);
  await linked(ben);
  await ben.getByTestId("tab-notes").waitFor({ timeout: SOON });
  await exec(ada, "INSERT INTO notes VALUES ('1', 'one')");
  await expect.poll(() => query(ben, "SELECT text FROM notes"), { timeout: SOON }).toEqual([["one"]]);

  // The service worker keeps the policy with the page.
  await ada.waitForFunction(() => navigator.serviceWorker.controller !== null, undefined, { timeout: SOON });
  await context.setOffline(true);
  await ada.reload();
  await opened(ada);
  expect(await query(ada, "SELECT text FROM notes")).toEqual([["one"]]);
  expect(refused).toEqual([]);

  // And it is in force, there and before.
  for (const page of [ada, ben]) {
    const heard = refusals(page);
    expect(
      await page.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "window.inlined = true";
        document.body.append(script);
        return "inlined" in window;
      }),
    ).toBe(false);
    expect(await page.evaluate(() => fetch("http://localhost:1/").then(() => "", String))).toMatch(
      /TypeError/,
    );
    await expect.poll(() => heard.length, { timeout: SOON }).toBeGreaterThanOrEqual(2);
  }
});

it("is loaded again where its engine did not come", async () => {
  // A service worker would fetch the engine, too, past the route.
  const page = await (await lab.browser({ serviceWorkers: "block" })).newPage();
  let asked = 0;
  await page.route(/\.wasm$/, async (route) => {
    asked++;
    if (asked === 1) await route.abort();
    if (asked > 2) await route.continue(); // the second one never gets an answer
  });
  await page.clock.install();
  await page.goto(lab.link);
  await page.getByTestId("failure").getByText("see whether the server can be reached").waitFor();
  await page.getByRole("button", { name: "Try again" }).click();
  await expect.poll(() => asked, { timeout: SOON }).toBe(2);
  await page.clock.fastForward(10_000);
  await page.getByTestId("opening-late").waitFor();
  await page.getByRole("button", { name: "Load the page again" }).click();
  await opened(page);
});
