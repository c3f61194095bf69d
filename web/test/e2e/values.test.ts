// Values that other systems lose on the way: from a Go peer to a browser, and back from there.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { equal, exec, Lab, type Plain, query, SOON } from "./lab.ts";
import type { Json, Replica } from "./replica.ts";

let lab: Lab;
let replica: Replica;
let page: Page;

// Names beyond ASCII, a column name that needs quotes, a key of three columns.
const table = "Größe_北京";
const columns = ["schlüssel", "ключ", "番 号", "wert"];
const quoted = columns.map((c) => `"${c}"`);

beforeAll(async () => {
  lab = await Lab.start();
  const schema = join(lab.dir, "schema.sql");
  writeFileSync(
    schema,
    `CREATE TABLE "${table}" (${quoted[0]} TEXT NOT NULL, ${quoted[1]} INTEGER NOT NULL, ${quoted[2]} BLOB NOT NULL, ${quoted[3]},
       PRIMARY KEY (${quoted.slice(0, 3).join(", ")}));
     SELECT crsql_as_crr('${table}');
     CREATE TABLE big (id INTEGER PRIMARY KEY NOT NULL, data BLOB);
     SELECT crsql_as_crr('big');`,
  );
  await lab.signal();
  replica = await lab.replica(schema);
  page = await lab.page(await lab.browser());
  await page.getByTestId("tab-big").waitFor({ timeout: SOON });
});

afterAll(() => lab?.stop());

// What SQL makes of each, and how the browser has to see it.
const values: readonly { name: string; sql: string; seen: Plain }[] = [
  { name: "2^53 + 1", sql: "9007199254740993", seen: 9007199254740993n },
  { name: "the largest INTEGER", sql: "9223372036854775807", seen: 2n ** 63n - 1n },
  { name: "the smallest INTEGER", sql: "-9223372036854775807 - 1", seen: -(2n ** 63n) },
  { name: "a whole REAL", sql: "2.0", seen: 2 },
  { name: "an INTEGER of the same size", sql: "2", seen: 2n },
  { name: "a tiny REAL", sql: "5e-324", seen: 5e-324 },
  { name: "empty text", sql: "''", seen: "" },
  { name: "an empty blob", sql: "x''", seen: new Uint8Array() },
  { name: "NULL", sql: "NULL", seen: null },
  { name: "text with NULs", sql: "char(97, 0, 98, 0)", seen: "a\0b\0" },
  { name: "a blob with zeros", sql: "x'00ff00'", seen: new Uint8Array([0, 255, 0]) },
  { name: "text of many scripts", sql: "'Zürich 北京 🇨🇭 עברית'", seen: "Zürich 北京 🇨🇭 עברית" },
];

// A REAL is compared as a number: two versions of SQLite may write the same one with other digits.
const exact = `SELECT typeof("wert"), CASE typeof("wert") WHEN 'real' THEN "wert" ELSE hex(CAST("wert" AS BLOB)) END
  FROM "${table}" WHERE "schlüssel" = ? AND "ключ" = 1`;

describe("from Go to a browser and back", () => {
  it.each(values)("$name", async ({ name, sql, seen }) => {
    await replica.exec(`INSERT INTO "${table}" VALUES (?, 1, x'00', ${sql})`, name);
    const want = await replica.query(exact, name);
    await expect.poll(() => query(page, exact, name), { timeout: SOON }).toEqual(want);
    const [row] = await query(page, `SELECT "wert" FROM "${table}" WHERE "schlüssel" = ?`, name);
    // Kinds tell: 2 is REAL, 2n INTEGER.
    expect(row).toEqual([seen]);

    // Back under another key, bound by the browser as it was read.
    await exec(page, `INSERT INTO "${table}" VALUES (?, 1, x'01', ?)`, `${name}, back`, row?.[0] ?? null);
    await expect.poll(() => replica.query(exact, `${name}, back`), { timeout: SOON }).toEqual(want);
  });

  it("each row under its key, no other", async () => {
    await equal([replica, page], table, columns.slice(0, 3), values.length * 2);
  });

  it("an update under the compound key", async () => {
    const where = `"schlüssel" = 'NULL' AND "ключ" = 1 AND "番 号" = x'00'`;
    await exec(page, `UPDATE "${table}" SET "wert" = 9007199254740995 WHERE ${where}`);
    await expect
      .poll(() => replica.query(`SELECT "wert" FROM "${table}" WHERE ${where}`), { timeout: SOON })
      .toEqual([[{ integer: "9007199254740995" } satisfies Json]]);
  });

  it("a blob of 10 MB", async () => {
    const size = 10_000_000;
    // Not all the same, so that a part that is lost or moved shows.
    const pattern = Buffer.alloc(size);
    for (let i = 0; i < size; i += 4) pattern.writeUInt32LE((i * 2654435761) >>> 0, i);
    await replica.exec("INSERT INTO big VALUES (1, ?)", { blob: pattern.toString("base64") });
    const there = "SELECT length(data) FROM big WHERE id = ?";
    await expect.poll(() => query(page, there, 1n), { timeout: SOON }).toEqual([[BigInt(size)]]);
    await exec(page, "INSERT INTO big SELECT 2, data FROM big WHERE id = 1");
    await expect.poll(() => replica.query(there, 2), { timeout: SOON }).toEqual([[size]]);
    const [row] = await replica.query("SELECT data FROM big WHERE id = 2");
    const blob = row?.[0];
    const back = Buffer.from(
      blob !== null && typeof blob === "object" && "blob" in blob ? blob.blob : "",
      "base64",
    );
    expect(back.equals(pattern)).toBe(true);
  });
});
