// A Go peer compares its rows with those of two browsers: two engines have the same digests, and what is damaged in one is found
// and mended.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { equal, exec, Lab, query, SOON } from "./lab.ts";
import type { Replica, VerifyReport } from "./replica.ts";

let lab: Lab;
let replica: Replica;
let writer: Page;
let reader: Page;

const columns = ["k", "n", "b"];
const rows = 600;

beforeAll(async () => {
  lab = await Lab.start();
  const schema = join(lab.dir, "schema.sql");
  writeFileSync(
    schema,
    `CREATE TABLE many (k TEXT NOT NULL, n INTEGER NOT NULL, b BLOB NOT NULL, "wért", w, PRIMARY KEY (k, n, b));
     SELECT crsql_as_crr('many');
     CREATE TABLE tag (name TEXT PRIMARY KEY NOT NULL);
     SELECT crsql_as_crr('tag');`,
  );
  await lab.signal();
  replica = await lab.replica(schema);
  writer = await lab.page(await lab.browser());
  reader = await lab.page(await lab.browser(), lab.readLink);
  await writer.getByTestId("tab-many").waitFor({ timeout: SOON });
});

afterAll(() => lab?.stop());

/** Verifies until `ok`: rows may be under way at first. */
async function verified(options: object, ok: (r: VerifyReport) => boolean): Promise<VerifyReport> {
  let report: VerifyReport | undefined;
  await expect
    .poll(
      async () => {
        report = await replica.verify(options);
        return ok(report) || report;
      },
      { timeout: SOON, interval: 100 },
    )
    .toBe(true);
  return report as VerifyReport;
}

describe("verify", () => {
  it("has rows of either engine", async () => {
    // Each kind of value, of each sign and size, by either engine; updates, deletes, and a row that came back.
    const numbers = `WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < ${rows})`;
    const insert = `${numbers} INSERT INTO many SELECT 'k' || (i % 7), i * (1 - i % 3) * 1000003, CAST(i AS BLOB),
      CASE i % 6 WHEN 0 THEN NULL WHEN 1 THEN i * -70000 WHEN 2 THEN i / 8.0 WHEN 3 THEN 'Zürich ' || i
        WHEN 4 THEN zeroblob(i) ELSE -0.0 END, 9007199254740993 - i FROM i`;
    await replica.exec(insert);
    await equal([replica, writer, reader], "many", columns, rows);
    await exec(writer, "UPDATE many SET w = -1 WHERE n % 5 = 0; DELETE FROM many WHERE n % 11 = 0");
    await exec(writer, "INSERT INTO tag VALUES ('from a browser'), ('gone'), ('back')");
    await exec(writer, "DELETE FROM tag WHERE name <> 'from a browser'");
    await exec(writer, "INSERT INTO tag VALUES ('back')");
    await equal([replica, writer, reader], "tag", ["name"], 2);
  });

  it("finds two browsers identical, whose rows another engine has written", async () => {
    const { members } = await verified({}, (r) => r.identical === 2 && r.total === 2);
    expect(members.map((m) => m.role).sort()).toEqual(["reader", "writer"]);
  });

  it("names the rows that were damaged by hand in one browser, and mends them", async () => {
    const past = (sql: string) =>
      exec(writer, `SELECT crsql_internal_sync_bit(1); ${sql}; SELECT crsql_internal_sync_bit(0)`);
    const [[n] = []] = await query(writer, "SELECT n FROM many WHERE k = 'k3' AND w > 0 ORDER BY n LIMIT 1");
    const [[m] = []] = await query(writer, "SELECT n FROM many WHERE k = 'k4' AND w > 0 ORDER BY n LIMIT 1");
    await past(`UPDATE many SET w = 0 WHERE k = 'k3' AND n = ${n}`);
    const key = `SELECT __crsql_key FROM many__crsql_pks WHERE k = 'k4' AND n = ${m}`;
    await past(`DELETE FROM many__crsql_clock WHERE key = (${key})`);
    await past(`DELETE FROM many WHERE k = 'k4' AND n = ${m}`);
    await past("UPDATE tag__crsql_clock SET col_version = 5 WHERE col_name = '-1' AND col_version = 3");

    // What is still under way is "unsettled".
    const { identical, members } = await verified({}, (r) =>
      r.members.every((m) => m.outcome === "identical" || m.outcome === "different"),
    );
    expect(identical).toBe(1);
    const bad = members.find((m) => m.outcome === "different");
    expect(bad?.role).toBe("writer");
    const found = bad?.tables.map((t) => [
      t.table,
      t.rows.map((r) => [...r.key.slice(0, 2), r.better]).sort(),
    ]);
    expect(found).toEqual([
      [
        "many",
        [
          ["k3", Number(n), "none"],
          ["k4", Number(m), "only ours"],
        ],
      ],
      ["tag", [["back", "theirs"]]],
    ]);

    const repaired = await replica.verify({ repair: true });
    expect(repaired.members.map((m) => m.repaired).sort()).toEqual([0, 3]);
    await verified({ repair: true }, (r) => r.identical === 2); // what came from the one browser is not in the other yet
    await verified({}, (r) => r.identical === 2);
    await equal(
      [replica, writer, reader],
      "many",
      [...columns, "w"],
      Number((await replica.query("SELECT count(*) FROM many"))[0]?.[0]),
    );
  });

  it("ends while a browser and the peer write", async () => {
    let writing = true;
    const busy = [replica, writer].map(async (one, i) => {
      for (let k = 0; writing; k++) {
        const sql = `INSERT INTO tag VALUES ('${i} ${k}')`;
        await (one === replica ? replica.exec(sql) : exec(writer, sql));
      }
    });
    const report = await replica.verify({});
    writing = false;
    await Promise.all(busy);
    expect(report.members.map((m) => m.outcome)).not.toContain("different");
    await verified({}, (r) => r.identical === 2);
  });
});
