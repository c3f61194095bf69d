// Browsers and a Go peer in one room, whose pages, programs and links end at any moment. After each round of that everybody is
// linked with everybody again, and nothing that was acknowledged is lost.
//
// CRMESH_CHAOS is how many rounds there are, none unless it is set (`make soak`); CRMESH_SEED repeats the choices of a run, but not
// what the browsers do in the meantime.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { dump, exec, Lab, SOON } from "./lab.ts";
import type { Program } from "./process.ts";
import type { Replica } from "./replica.ts";

const rounds = Number(process.env.CRMESH_CHAOS ?? 0);
const browsers = 3;
/** How long a round may take until all is well again, in ms: an attempt may be lost with whoever made it. */
const calm = 2 * SOON;

const seed = Number(process.env.CRMESH_SEED ?? Math.floor(Math.random() * 2 ** 32));
let state = seed;

// mulberry32
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

const below = (n: number) => Math.floor(random() * n);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** One browser: its tabs, of which one leads, share a database. */
interface Browser {
  readonly name: string;
  readonly context: BrowserContext;
  readonly tabs: Page[];
}

let lab: Lab;
let signal: Program;
let replica: Replica;
const all: Browser[] = [];
const acknowledged = new Set<string>();
const did: string[] = [];
let next = 0;

beforeAll(async () => {
  if (rounds === 0) return;
  lab = await Lab.start();
  const schema = join(lab.dir, "schema.sql");
  writeFileSync(schema, "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t');");
  signal = await lab.signal("--grace", "3s");
  replica = await lab.replica(schema);
  for (let i = 0; i < browsers; i++) {
    const context = await lab.browser();
    const page = await lab.page(context);
    await page.getByTestId("tab-t").waitFor({ timeout: SOON });
    all.push({ name: `browser ${i}`, context, tabs: [page] });
  }
});

afterAll(() => lab?.stop());

/** Writes until told to stop; what fails because its tab or program is gone may have been written or not. */
async function write(go: () => boolean): Promise<void> {
  const one = async (at: Browser | undefined) => {
    while (go()) {
      const id = `row ${next++}`;
      try {
        const page = at?.tabs[0];
        if (!at) await replica.exec("INSERT INTO t VALUES (?, 1)", id);
        else if (page) await exec(page, "INSERT INTO t VALUES (?, 1)", id);
        if (page || !at) acknowledged.add(id);
      } catch {
        await pause(20);
      }
      await pause(30);
    }
  };
  await Promise.all([undefined, ...all].map(one));
}

const disturbances: Record<string, (b: Browser) => Promise<void>> = {
  "reloads a tab": async ({ tabs }) => {
    await tabs[below(tabs.length)]?.reload();
  },
  "closes all tabs and opens another": async (b) => {
    const gone = b.tabs.splice(0);
    for (const page of gone) await page.close();
    b.tabs.push(await lab.page(b.context));
  },
  "crashes all tabs": async (b) => {
    const gone = b.tabs.splice(0);
    for (const page of gone) {
      await page.goto("chrome://crash").catch(() => undefined);
      await page.close();
    }
    b.tabs.push(await lab.page(b.context));
  },
  "opens a tab": async (b) => {
    if (b.tabs.length < 3) b.tabs.push(await lab.page(b.context));
  },
  "closes its first tab": async (b) => {
    if (b.tabs.length > 1) await b.tabs.shift()?.close();
  },
  "cuts its oldest channels": async ({ tabs }) => {
    for (const page of tabs) {
      await page.evaluate(() => {
        const { channels } = globalThis as unknown as { channels: RTCDataChannel[] };
        for (const c of channels.filter((c) => c.readyState === "open").slice(0, 2)) c.close();
      });
    }
  },
  "is told that the network changed": async ({ tabs }) => {
    for (const page of tabs) {
      await page.evaluate(() => {
        dispatchEvent(new Event("offline"));
        dispatchEvent(new Event("online"));
      });
    }
  },
  "is frozen for a moment": async ({ context, tabs }) => {
    for (const page of tabs) {
      const cdp = await context.newCDPSession(page);
      await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
      await pause(below(3000));
      await cdp.send("Page.setWebLifecycleState", { state: "active" });
      await cdp.detach();
    }
  },
  "loses the signaling server": async () => {
    if (!signal.running) return;
    await signal.kill();
    await pause(below(1500));
    signal = await lab.signal("--grace", "3s");
  },
  "loses the replica": async () => {
    if (!replica.program.running) return;
    if (below(2)) await replica.program.kill();
    else await replica.program.stop();
    await pause(below(1500));
    replica = await lab.replica();
  },
};

/** What is not as it should be; nothing if all is well. */
async function wrong(): Promise<string[]> {
  const out: string[] = [];
  const texts = new Set<string>();
  for (const { name, tabs } of all) {
    for (const page of tabs) {
      const links = await page.evaluate(() => {
        const status = window.crmesh?.status();
        return (
          status?.members.map((m) => `${m.name}: ${m.state} ${m.stage} ${m.role ?? ""}`) ?? ["no database"]
        );
      });
      const bad = links.filter((l) => !/: open +writer/.test(l));
      if (links.length !== browsers || bad.length > 0)
        out.push(`${name} has ${links.length} members, ${bad.join(", ")}`);
      texts.add(await dump(page, "t", ["id", "v"]));
    }
  }
  const { members } = await replica.status();
  const dead = members.filter((m) => !m.live);
  if (members.length !== browsers || dead.length > 0)
    out.push(`the replica has ${members.length} members, ${dead.length} of them not live`);
  texts.add(await dump(replica, "t", ["id", "v"]));
  if (texts.size > 1) out.push(`${texts.size} different tables`);
  const rows = new Set(
    [...texts].flatMap((t) => t.split("\n")).map((line) => /'(row \d+)'/.exec(line)?.[1] ?? ""),
  );
  const lost = [...acknowledged].filter((id) => !rows.has(id));
  if (texts.size === 1 && lost.length > 0)
    out.push(`${lost.length} acknowledged rows are gone, as ${lost[0]}`);
  return out;
}

/** What all say of their state, and the log of the replica. */
async function told(): Promise<string> {
  const lines: string[] = [];
  for (const { name, tabs } of all) {
    for (const page of tabs)
      lines.push(`${name} ${await page.evaluate(() => JSON.stringify(window.crmesh?.status().members))}`);
  }
  lines.push(`the replica ${JSON.stringify(await replica.status())}`, replica.program.output.slice(-6000));
  return lines.join("\n");
}

it.skipIf(rounds === 0)(
  `all are linked and equal again after each of ${rounds} rounds of disturbances (CRMESH_SEED=${seed})`,
  async () => {
    const names = Object.keys(disturbances);
    for (let round = 0; round < rounds; round++) {
      let going = true;
      const writing = write(() => going);
      // Disturbances of different browsers overlap; those of one follow one another.
      did.length = 0;
      const some = all.filter(() => random() < 0.7);
      const plans = some.map((b) => ({
        b,
        what: Array.from({ length: 1 + below(3) }, () => names[below(names.length)] ?? ""),
      }));
      const shared = /signaling|replica/;
      await Promise.all(
        plans.map(async ({ b, what }, i) => {
          for (const name of what) {
            if (shared.test(name) && i > 0) continue; // one at a time
            did.push(`${b.name} ${name}`);
            await disturbances[name]?.(b);
          }
        }),
      );
      going = false;
      await writing;
      let last: string[] = [];
      const begun = performance.now();
      await expect
        .poll(
          async () => {
            last = await wrong().catch((error: Error) => [error.message]);
            return last;
          },
          { timeout: calm, interval: 200 },
        )
        .toEqual([])
        .catch(async (error) => {
          throw new Error(`round ${round}: ${last.join("; ")}\nafter: ${did.join("; ")}\n${await told()}`, {
            cause: error,
          });
        });
      const took = Math.round(performance.now() - begun);
      process.stdout.write(`round ${round}: well after ${took} ms; ${did.join("; ")}\n`);
    }
  },
  rounds * 3 * calm,
);
