// A room with everything real: bin/signal, bin/peer, Chromium. One lab a test file.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { expect, vi } from "vitest";
import { launchChromium } from "../chromium.ts";
import { freePort, Program, run } from "./process.ts";
import { Replica } from "./replica.ts";

// Several states of up to SOON each may follow one another in a test.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

/**
 * How long a state may take to come about, in ms: far more than it does on a machine with nothing else to do, and more than two
 * attempts at a link take that fail.
 */
export const SOON = 60_000;

/** A value as it passes between the test and a page. */
export type Plain = null | bigint | number | string | Uint8Array;

export class Lab {
  readonly dir: string;
  readonly base: string;
  readonly #signalPort: number;
  readonly #apiPort: number;
  readonly #programs: Program[] = [];
  readonly #browsers: Browser[] = [];
  link = "";
  readLink = "";

  private constructor(signalPort: number, apiPort: number) {
    this.dir = mkdtempSync(join(tmpdir(), "crmesh-e2e-"));
    this.#signalPort = signalPort;
    this.#apiPort = apiPort;
    this.base = `http://127.0.0.1:${signalPort}/`;
  }

  /** A signaling server, and a new room there. */
  static async start(): Promise<Lab> {
    const lab = new Lab(await freePort(), await freePort());
    const links = (await run("peer", "room", "new", "--signal", lab.base)).match(/http\S+#\S+/g) ?? [];
    lab.link = links.find((l) => l.split(".").length - lab.base.split(".").length === 1) ?? "";
    lab.readLink = links.find((l) => l.split(".").length - lab.base.split(".").length === 2) ?? "";
    expect(lab.link).toContain("#");
    return lab;
  }

  async signal(...args: string[]): Promise<Program> {
    const program = this.keep(
      new Program("signal", ["--listen", `127.0.0.1:${this.#signalPort}`, "--stun", "off", ...args]),
    );
    await program.ready(`${this.base}healthz`);
    return program;
  }

  /** The replica of this lab; a second call after the first one's end opens the same database. */
  async replica(schema?: string): Promise<Replica> {
    const api = `127.0.0.1:${this.#apiPort}`;
    const args = ["run", "--db", join(this.dir, "replica.db"), "--room", this.link, "--api", api];
    args.push("--signal", this.base, ...(schema === undefined ? [] : ["--schema", schema]));
    const program = this.keep(new Program("peer", args));
    await program.ready(`http://${api}/v1/status`);
    return new Replica(program, `http://${api}`);
  }

  /** A browser with a profile of its own: its pages share storage with nobody else's. */
  async browser(options: BrowserContextOptions = {}): Promise<BrowserContext> {
    const browser = this.#browsers[0] ?? (await launchChromium());
    if (this.#browsers.length === 0) this.#browsers.push(browser);
    const context = await browser.newContext(options);
    context.setDefaultTimeout(SOON);
    return context;
  }

  /** Ends what `browser` has begun: all pages are gone without a word, and what they stored with them. */
  async closeBrowsers(): Promise<void> {
    for (const browser of this.#browsers) for (const context of browser.contexts()) await context.close();
  }

  /** Opens the room in a new tab of a browser and waits for its database. */
  async page(context: BrowserContext, link = this.link): Promise<Page> {
    const page = await context.newPage();
    await page.addInitScript(() => {
      const channels: RTCDataChannel[] = [];
      const create = RTCPeerConnection.prototype.createDataChannel;
      RTCPeerConnection.prototype.createDataChannel = function (...args) {
        const channel = create.apply(this, args);
        channels.push(channel);
        return channel;
      };
      Object.assign(globalThis, { channels });
    });
    await page.goto(link);
    await opened(page);
    return page;
  }

  async stop(): Promise<void> {
    for (const browser of this.#browsers) await browser.close();
    for (const program of this.#programs.reverse()) if (program.running) await program.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  private keep(program: Program): Program {
    this.#programs.push(program);
    return program;
  }
}

/** Waits until the page has its database open. */
export async function opened(page: Page): Promise<void> {
  await page.waitForFunction(() => window.crmesh !== undefined, undefined, { timeout: SOON });
}

/** Channels that are open in a page. */
export function openChannels(page: Page): Promise<number> {
  return page.evaluate(() => {
    const { channels } = globalThis as unknown as { channels: RTCDataChannel[] };
    return channels.filter((c) => c.readyState === "open").length;
  });
}

/** Closes the channel of a page that is open longest, without a word to anybody. */
export function cut(page: Page): Promise<void> {
  return page.evaluate(() => {
    const { channels } = globalThis as unknown as { channels: RTCDataChannel[] };
    channels.find((c) => c.readyState === "open")?.close();
  });
}

/** Runs SQL that writes, in a page; resolves once it is durable there. */
export function exec(page: Page, sql: string, ...args: Plain[]): Promise<void> {
  return page.evaluate(
    async ([text, values]) => {
      if (!window.crmesh) throw new Error("the page has no database open");
      await window.crmesh.exec(text, values);
    },
    [sql, args] as const,
  );
}

/** The rows of a query in a page. */
export function query(page: Page, sql: string, ...args: Plain[]): Promise<Plain[][]> {
  return page.evaluate(
    async ([text, values]) => {
      if (!window.crmesh) throw new Error("the page has no database open");
      const { rows } = await window.crmesh.query(text, values);
      return rows.map((row) => [...row]);
    },
    [sql, args] as const,
  );
}

/** A table as one text, the same for the same content, from a page or a replica. */
export async function dump(of: Page | Replica, table: string, columns: readonly string[]): Promise<string> {
  const cells = columns.map((c) => `typeof("${c}") || ':' || quote("${c}")`).join(" || ' | ' || ");
  const order = columns.map((c) => `"${c}"`).join(", ");
  const sql = `SELECT coalesce(group_concat(line, char(10)), '') FROM (SELECT ${cells} AS line FROM "${table}" ORDER BY ${order})`;
  try {
    const rows = of instanceof Replica ? await of.query(sql) : await query(of, sql);
    return String(rows[0]?.[0]);
  } catch (error) {
    // The table may still be on its way.
    return `(${error instanceof Error ? error.message : error})`;
  }
}

/** Waits until all hold the same rows, as many as `count`. */
export function equal(
  all: readonly (Page | Replica)[],
  table: string,
  columns: readonly string[],
  count: number,
): Promise<string> {
  return agree(all, table, columns, (text) => (text === "" ? 0 : text.split("\n").length), count);
}

/** Waits until all hold the same rows, and of these, as `dump` gives them, `look` says what is wanted. */
export async function agree<T>(
  all: readonly (Page | Replica)[],
  table: string,
  columns: readonly string[],
  look: (text: string) => T,
  wanted: T,
): Promise<string> {
  let texts: string[] = [];
  await expect
    .poll(
      async () => {
        texts = await Promise.all(all.map((one) => dump(one, table, columns)));
        return { seen: texts.map(look), distinct: new Set(texts).size };
      },
      { timeout: SOON, interval: 50 },
    )
    .toEqual({ seen: all.map(() => wanted), distinct: 1 });
  return texts[0] ?? "";
}
