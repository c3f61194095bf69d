// Two browsers and a Go peer share a room, and lose its server, and then each other. The tests are one story, in order.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { agree, cut, equal, exec, Lab, openChannels, SOON } from "./lab.ts";
import type { Program } from "./process.ts";
import type { Replica } from "./replica.ts";

const columns = ["id", "text", "done"];

/** How many writes the replica has acknowledged when it is killed. */
const ACKNOWLEDGED = 60;

let lab: Lab;
let signal: Program;
let replica: Replica;
let ada: Page;
let ben: Page;
let eve: Page;
let rows = 0;

beforeAll(async () => {
  lab = await Lab.start();
  const schema = join(lab.dir, "schema.sql");
  writeFileSync(
    schema,
    `CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL DEFAULT '', done INTEGER NOT NULL DEFAULT 0);
     SELECT crsql_as_crr('notes');`,
  );
  signal = await lab.signal();
  replica = await lab.replica(schema);
  ada = await lab.page(await lab.browser());
  ben = await lab.page(await lab.browser());
});

afterAll(() => lab?.stop());

/** Waits until a page has so many members linked. */
async function linked(page: Page, count: number): Promise<void> {
  await expect
    .poll(() => page.getByTestId("peer-count").getAttribute("data-open"), { timeout: SOON })
    .toBe(String(count));
}

/** A cell of the grid. */
function cell(page: Page, key: string, column: string) {
  return page.locator(`[data-testid=row][data-key="${key}"] [data-column="${column}"]`);
}

describe("a shared room", () => {
  it("links everybody with everybody", async () => {
    await linked(ada, 2);
    await linked(ben, 2);
    // The schema came from the replica: nobody made a table in a browser.
    await ada.getByTestId("tab-notes").waitFor({ timeout: SOON });
    await ben.getByTestId("tab-notes").waitFor({ timeout: SOON });
  });

  it("carries what each writes to all", async () => {
    await replica.exec("INSERT INTO notes(id, text) VALUES ('go', 'from the replica')");

    await ada.getByTestId("add-row").click();
    await ada.getByLabel("id text").fill("ada");
    await ada.getByLabel("text text").fill("by the form");
    await ada.keyboard.press("Enter");

    await ben.getByTestId("tab-sql").click();
    await ben.getByTestId("sql-input").fill("INSERT INTO notes(id, text) VALUES ('ben', 'by SQL')");
    await ben.getByTestId("sql-run").click();
    await ben.getByTestId("tab-notes").click();

    rows = 3;
    await equal([replica, ada, ben], "notes", columns, rows);
    // And it is on the screen, without a reload.
    await cell(ben, "ada", "text").getByText("by the form").waitFor();
    await cell(ada, "ben", "text").getByText("by SQL").waitFor();
  });

  it("shows an edited cell at the others", async () => {
    await cell(ada, "go", "text").dblclick();
    await ada.getByTestId("cell-input").fill("changed by Ada");
    await ada.keyboard.press("Enter");
    await cell(ben, "go", "text").getByText("changed by Ada").waitFor();
    await equal([replica, ada, ben], "notes", columns, rows);
  });

  it("deletes a row everywhere", async () => {
    await ben.getByTestId("row").filter({ hasText: "by SQL" }).getByTestId("delete-row").click();
    await ben.getByText("Delete?").click();
    rows -= 1;
    await equal([replica, ada, ben], "notes", columns, rows);
    await cell(ada, "ben", "text").waitFor({ state: "detached" });
  });
});

describe("without the signaling server", () => {
  it("goes on, and says so", async () => {
    await signal.kill();
    await ada.getByTestId("problem-signal").waitFor({ timeout: SOON });
    await exec(ada, "INSERT INTO notes(id, text) VALUES ('ada2', 'no server')");
    await exec(ben, "INSERT INTO notes(id, text) VALUES ('ben2', 'no server')");
    await replica.exec("INSERT INTO notes(id, text) VALUES ('go2', 'no server')");
    rows += 3;
    await equal([replica, ada, ben], "notes", columns, rows);
  });

  it("links again over the third what is lost between two, page and replica alike", async () => {
    for (const page of [ada, ada, ben, ben]) {
      await cut(page); // one of its two channels, then the other
      for (const p of [ada, ben]) {
        await expect.poll(() => openChannels(p), { timeout: SOON, interval: 20 }).toBe(2);
        await linked(p, 2);
      }
    }
    await exec(ada, "INSERT INTO notes(id, text) VALUES ('ada3', 'over links made without a server')");
    rows += 1;
    await equal([replica, ada, ben], "notes", columns, rows);
    const { relay } = await replica.status();
    expect(relay.passed + relay.received).toBeGreaterThan(0);
  });

  it("takes in a third browser once the server is back", async () => {
    signal = await lab.signal();
    eve = await lab.page(await lab.browser());
    await equal([replica, ada, ben, eve], "notes", columns, rows);
    await linked(eve, 3);
    await exec(eve, "INSERT INTO notes(id, text) VALUES ('eve', 'new here')");
    rows += 1;
    await equal([replica, ada, ben, eve], "notes", columns, rows);
    await ada.getByTestId("problem-signal").waitFor({ state: "detached", timeout: SOON });
  });
});

describe("when the replica is killed in the middle of a burst", () => {
  it("loses no row that anybody acknowledged", async () => {
    const acknowledged: string[] = [];
    let killed: Promise<void> | undefined;
    // Each writes until the replica is gone. It is killed while its own writer goes on: one write may be under way then,
    // which nobody has acknowledged and which may be there or not.
    const browserBurst = async (name: string, page: Page) => {
      for (let i = 0; killed === undefined; i++) {
        const id = `${name}-burst-${i}`;
        await exec(page, "INSERT INTO notes(id, text) VALUES (?, 'burst')", id);
        acknowledged.push(id);
      }
    };
    const replicaBurst = async () => {
      for (let i = 0; ; i++) {
        const id = `go-burst-${i}`;
        try {
          await replica.exec("INSERT INTO notes(id, text) VALUES (?, 'burst')", id);
        } catch {
          expect(killed).toBeDefined();
          return;
        }
        acknowledged.push(id);
        if (i === ACKNOWLEDGED) killed = replica.program.kill();
      }
    };
    await Promise.all([replicaBurst(), browserBurst("ada", ada), browserBurst("ben", ben)]);
    await killed;
    // The browsers go on without it.
    await exec(ada, "INSERT INTO notes(id, text) VALUES ('alone', 'the replica is down')");
    // How much of the replica's burst has reached them is open; all of their own must.
    const theirs = [...acknowledged.filter((id) => !id.startsWith("go-")), "alone"];
    const missing = (text: string) => theirs.filter((id) => !text.includes(`text:'${id}'`));
    await agree([ada, ben, eve], "notes", columns, missing, []);

    replica = await lab.replica();
    const [held] = await replica.query("SELECT count(*) FROM notes WHERE id LIKE 'go-burst-%'");
    rows += theirs.length + Number(held?.[0]);
    const text = await equal([replica, ada, ben, eve], "notes", columns, rows);
    for (const id of acknowledged) expect(text).toContain(`text:'${id}'`);
    await exec(eve, "INSERT INTO notes(id, text) VALUES ('end', 'all well')");
    rows += 1;
    await equal([replica, ada, ben, eve], "notes", columns, rows);
  });
});
