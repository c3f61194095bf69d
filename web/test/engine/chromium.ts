// A real Chromium with a profile of its own, which can be killed and started again on the same profile.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** How long the browser may take to start, in milliseconds. */
const START_MS = 120_000;

/** How long a page may take for what it is asked to do, in milliseconds. */
const TIMEOUT_MS = 60_000;

/** One browser on one profile directory. Whoever starts it disposes of it. */
export class Chromium {
  readonly #profile: string;
  #process: ChildProcess | undefined;
  #browser: Browser | undefined;

  private constructor(profile: string) {
    this.#profile = profile;
  }

  static async start(): Promise<Chromium> {
    const browser = new Chromium(await mkdtemp(join(tmpdir(), "crmesh-chromium-")));
    await browser.run();
    return browser;
  }

  /** Starts it, again after a kill. */
  async run(): Promise<void> {
    const flags = [
      "--headless=new",
      "--no-sandbox",
      "--no-first-run",
      "--disable-gpu",
      "--remote-debugging-port=0",
    ];
    const child = spawn(CHROMIUM, [...flags, `--user-data-dir=${this.#profile}`, "about:blank"], {
      detached: true,
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#process = child;
    const endpoint = await new Promise<string>((resolve, reject) => {
      let output = "";
      const timer = setTimeout(() => reject(new Error(`chromium did not start:\n${output}`)), START_MS);
      child.stderr?.on("data", (chunk: Buffer) => {
        output += chunk;
        const match = /DevTools listening on (ws:\S+)/.exec(output);
        if (match?.[1] === undefined) return;
        clearTimeout(timer);
        resolve(match[1]);
      });
    });
    this.#browser = await chromium.connectOverCDP(endpoint);
  }

  async page(url: string): Promise<Page> {
    const context = this.#browser?.contexts()[0];
    if (context === undefined) throw new Error("the browser is not running");
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT_MS);
    await page.goto(url);
    return page;
  }

  /** A page in a private window. */
  async privatePage(url: string): Promise<Page> {
    if (this.#browser === undefined) throw new Error("the browser is not running");
    const page = await this.#browser.newPage();
    page.setDefaultTimeout(TIMEOUT_MS);
    await page.goto(url);
    return page;
  }

  /** Ends all of its processes at once, with SIGKILL. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child?.pid === undefined) return;
    this.#process = undefined;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    process.kill(-child.pid, "SIGKILL");
    await gone;
    child.stderr?.destroy();
    await this.#browser?.close().catch(() => {});
  }

  async dispose(): Promise<void> {
    await this.kill();
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}
