// An upgrade of the signaling server under two browsers: their link stays the same one.

import type { BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { exec, Lab, query, SOON } from "./lab.ts";
import type { Program } from "./process.ts";

declare global {
  interface Window {
    /** How many RTCPeerConnections and signaling WebSockets the page has made. */
    made: { links: number; sockets: number };
  }
}

const args = ["--reuse-port", "--drain", "2s"];
let lab: Lab;
let old: Program;

beforeAll(async () => {
  lab = await Lab.start();
  old = await lab.signal(...args);
});

afterAll(() => lab?.stop());

/** A page that counts. */
async function counting(context: BrowserContext): Promise<Page> {
  await context.addInitScript(() => {
    window.made = { links: 0, sockets: 0 };
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor(config?: RTCConfiguration) {
        super(config);
        window.made.links++;
      }
    };
    window.WebSocket = class extends WebSocket {
      constructor(url: string | URL, protocols?: string | string[]) {
        super(url, protocols);
        window.made.sockets++;
      }
    };
  });
  return lab.page(context);
}

it("is not noticed by a link", async () => {
  const pages = [await counting(await lab.browser()), await counting(await lab.browser())] as const;
  const [ada, ben] = pages;
  await exec(
    ada,
    "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT); SELECT crsql_as_crr('notes')",
  );
  await ben.getByTestId("tab-notes").waitFor({ timeout: SOON });
  const before = await Promise.all(pages.map((page) => page.evaluate(() => window.made)));
  for (const made of before) expect(made.links).toBeGreaterThan(0);

  await lab.signal(...args);
  expect(await old.stop()).toBe(0);
  for (const [i, page] of pages.entries()) {
    // More than one where the page was held up for seconds: it looks whether the server lives, then, and does not wait long for the answer.
    await expect
      .poll(() => page.evaluate(() => window.made.sockets), { timeout: SOON })
      .toBeGreaterThan(before[i]?.sockets ?? 0);
  }
  await exec(ada, "INSERT INTO notes VALUES ('1', 'one')");
  await expect.poll(() => query(ben, "SELECT text FROM notes"), { timeout: SOON }).toEqual([["one"]]);
  for (const [i, page] of pages.entries()) {
    await expect
      .poll(() => page.getByTestId("peer-count").getAttribute("data-open"), { timeout: SOON })
      .toBe("1");
    expect(await page.evaluate(() => window.made.links)).toBe(before[i]?.links);
  }
});
