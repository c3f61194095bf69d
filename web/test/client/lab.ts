// Pages with the client library alone, a signaling server, and a room.

import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { createServer, type ViteDevServer } from "vite";
import { expect } from "vitest";
import type { ClientStatus, RoomLinks, SqlValue } from "../../src/index.ts";
import { launchChromium } from "../chromium.ts";
import { freePort, Program } from "../e2e/process.ts";
import type { Harness } from "./page.ts";

declare const harness: Harness;

/** How long a state may take to come about, in ms. */
export const SOON = 60_000;

export class ClientLab {
  readonly #server: ViteDevServer;
  readonly #browser: Browser;
  readonly #port: number;
  readonly #signalArgs: readonly string[];
  #signal: Program | undefined;

  private constructor(server: ViteDevServer, browser: Browser, port: number, signalArgs: readonly string[]) {
    this.#server = server;
    this.#browser = browser;
    this.#port = port;
    this.#signalArgs = signalArgs;
  }

  /** `name`: of the test, whose cache of modules is its own. `signalArgs`: more flags of the signaling server. */
  static async start(name: string, ...signalArgs: string[]): Promise<ClientLab> {
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const cacheDir = fileURLToPath(new URL(`../../node_modules/.vite-${name}-test`, import.meta.url));
    const server = await createServer({
      root,
      cacheDir,
      logLevel: "error",
      server: { port: 0, host: "127.0.0.1", hmr: false, watch: null },
    });
    await server.listen();
    const lab = new ClientLab(server, await launchChromium(), await freePort(), signalArgs);
    await lab.startSignal();
    return lab;
  }

  get signalURL(): string {
    return `http://127.0.0.1:${this.#port}/`;
  }

  async startSignal(): Promise<void> {
    const args = ["--listen", `127.0.0.1:${this.#port}`, "--stun", "off", "--allow-origin", "*"];
    this.#signal = new Program("signal", [...args, ...this.#signalArgs]);
    await this.#signal.ready(`${this.signalURL}healthz`);
  }

  async killSignal(): Promise<void> {
    await this.#signal?.kill();
  }

  /** A browser with storage of its own. */
  async context(): Promise<BrowserContext> {
    const context = await this.#browser.newContext();
    context.setDefaultTimeout(SOON);
    return context;
  }

  /** A tab with the library, nothing opened yet. */
  async tab(context: BrowserContext): Promise<Page> {
    const page = await context.newPage();
    page.on("pageerror", (error) => process.stderr.write(`page error: ${error.stack ?? error.message}\n`));
    await page.goto(`${this.#server.resolvedUrls?.local[0]}test/client/index.html`);
    await page.waitForFunction(() => "harness" in globalThis);
    return page;
  }

  createRoom(page: Page): Promise<RoomLinks> {
    return page.evaluate((base) => harness.createRoom(base), this.signalURL);
  }

  /** A tab with the room of `link` open. */
  async open(context: BrowserContext, link: string, name = ""): Promise<Page> {
    const page = await this.tab(context);
    await page.evaluate(([room, n]) => harness.open({ room, name: n }), [link, name] as const);
    return page;
  }

  async stop(): Promise<void> {
    await this.#browser.close();
    await this.#server.close();
    if (this.#signal?.running) await this.#signal.stop();
  }
}

export function exec(page: Page, sql: string, ...args: SqlValue[]): Promise<number> {
  return page.evaluate(([s, a]) => harness.exec(s, ...a), [sql, args] as const);
}

export function query(page: Page, sql: string, ...args: SqlValue[]): Promise<SqlValue[][]> {
  return page.evaluate(([s, a]) => harness.query(s, ...a), [sql, args] as const);
}

export function status(page: Page): Promise<ClientStatus> {
  return page.evaluate(() => harness.client?.status() as ClientStatus);
}

/** Waits until the query gives the same, given rows in all pages. */
export async function settled(pages: readonly Page[], sql: string, rows: SqlValue[][]): Promise<void> {
  for (const page of pages) {
    await expect
      .poll(() => query(page, sql).catch((error: Error) => error.message), { timeout: SOON, interval: 30 })
      .toEqual(rows);
  }
}

/** Waits until the page has `n` open links. */
export async function linked(page: Page, n: number): Promise<void> {
  await expect
    .poll(async () => (await status(page)).members.filter((m) => m.state === "open").length, {
      timeout: SOON,
      interval: 30,
    })
    .toBe(n);
}
