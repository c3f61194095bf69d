// A browser and a Go peer with different tables, until they are the same. The tests are one story, in order.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { equal, exec, Lab, query, SOON } from "./lab.ts";
import type { Replica } from "./replica.ts";

let lab: Lab;
let replica: Replica;
let ada: Page;

const alter = (table: string, change: string) =>
  `SELECT crsql_begin_alter('${table}'); ${change}; SELECT crsql_commit_alter('${table}')`;

function schemaFile(name: string, notes: string, odd: string, more = ""): string {
  const path = join(lab.dir, name);
  writeFileSync(
    path,
    `CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT${notes}); SELECT crsql_as_crr('notes');
     CREATE TABLE odd (${odd}); SELECT crsql_as_crr('odd'); ${more}`,
  );
  return path;
}

const simpleKey = "id INTEGER PRIMARY KEY NOT NULL, k TEXT NOT NULL DEFAULT '', v";
const doubleKey = "id INTEGER NOT NULL, k TEXT NOT NULL DEFAULT '', v, PRIMARY KEY (id, k)";

beforeAll(async () => {
  lab = await Lab.start();
  await lab.signal();
  ada = await lab.page(await lab.browser());
  await exec(
    ada,
    `CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, text TEXT, mood TEXT DEFAULT 'good');
     SELECT crsql_as_crr('notes'); CREATE TABLE odd (${simpleKey}); SELECT crsql_as_crr('odd')`,
  );
  await exec(ada, "INSERT INTO notes VALUES ('ada', 'of the page', 'fine')");
  await exec(ada, "INSERT INTO odd VALUES (1, 'k', 'of the page')");
  replica = await lab.replica(schemaFile("first.sql", ", tags TEXT DEFAULT 'none'", doubleKey));
});

afterAll(() => lab?.stop());

it("takes the columns that are missing, both ways", async () => {
  await replica.exec("INSERT INTO notes (id, text, tags) VALUES ('go', 'of the replica', 'red')");
  await equal([replica, ada], "notes", ["id", "text", "mood", "tags"], 2);
});

it("keeps what does not fit, and says so on both sides", async () => {
  await replica.exec("INSERT INTO odd VALUES (2, 'k', 'of the replica')");
  await expect
    .poll(() => query(ada, "SELECT count(*) FROM crmesh_parked"), { timeout: SOON })
    .toEqual([[1n]]);
  await ada.getByTestId("problem-parked").getByText("odd: bad key").waitFor({ timeout: SOON });
  await expect
    .poll(() => ada.getByTestId("schema-difference").locator("li").allTextContents(), { timeout: SOON })
    .toEqual(["odd: column k is no part of the primary key here and part 2 of the primary key there"]);
  await expect.poll(async () => (await replica.status()).parked.changes, { timeout: SOON }).toBe(2); // k and v
  await expect
    .poll(async () => (await replica.status()).members[0]?.schemaDifference, { timeout: SOON })
    .toEqual(["odd: column k is part 2 of the primary key here and no part of the primary key there"]);
});

it("brings what was kept to life when one side migrates", async () => {
  await exec(ada, alter("odd", `DROP TABLE odd; CREATE TABLE odd (${doubleKey})`));
  await expect
    .poll(() => query(ada, "SELECT * FROM odd"), { timeout: SOON })
    .toEqual([[2n, "k", "of the replica"]]);
  await expect.poll(() => ada.getByTestId("problem-parked").count(), { timeout: SOON }).toBe(0);
  await expect.poll(() => ada.getByTestId("schema-difference").count(), { timeout: SOON }).toBe(0);
  await expect
    .poll(async () => (await replica.status()).members[0]?.sameSchema, { timeout: SOON })
    .toBe(true);
});

it("follows a replica that is migrated to a new schema file", async () => {
  await replica.program.stop();
  replica = await lab.replica(
    schemaFile(
      "second.sql",
      ", tags TEXT DEFAULT 'none', n INTEGER NOT NULL DEFAULT 0",
      doubleKey,
      "CREATE TABLE more (id TEXT PRIMARY KEY NOT NULL); SELECT crsql_as_crr('more');",
    ),
  );
  await replica.exec("UPDATE notes SET n = 7 WHERE id = 'ada'");
  await replica.exec("INSERT INTO more VALUES ('x')");
  await equal([replica, ada], "notes", ["id", "text", "mood", "tags", "n"], 2);
  await equal([replica, ada], "more", ["id"], 1);
});
