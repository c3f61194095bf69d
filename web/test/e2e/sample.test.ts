// What `make run` offers: a browser fills with the sample database, and a reader may look but not touch.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { equal, exec, Lab, SOON } from "./lab.ts";
import type { Replica } from "./replica.ts";

const dir = fileURLToPath(new URL("../../../.cache/sample/", import.meta.url));
const counts = JSON.parse(readFileSync(`${dir}counts.json`, "utf8")) as {
  countries: number;
  cities100k: number;
};

let lab: Lab;
let replica: Replica;
let writer: Page;
let reader: Page;

beforeAll(async () => {
  lab = await Lab.start();
  await lab.signal();
  replica = await lab.replica(`${dir}sample.sql`);
});

afterAll(() => lab?.stop());

async function rowsOf(page: Page, table: string): Promise<string | null> {
  await page.getByTestId(`tab-${table}`).click();
  return page.getByTestId("row-count").getAttribute("data-count");
}

describe("the sample room", () => {
  it("fills a browser", async () => {
    writer = await lab.page(await lab.browser());
    await writer.getByTestId("tab-cities").waitFor({ timeout: SOON });
    await expect.poll(() => rowsOf(writer, "cities"), { timeout: SOON }).toBe(String(counts.cities100k));
    await expect.poll(() => rowsOf(writer, "countries"), { timeout: SOON }).toBe(String(counts.countries));
    await expect
      .poll(() => writer.getByTestId("sync").getAttribute("data-synced"), { timeout: SOON })
      .toBe("true");
    await equal(
      [replica, writer],
      "countries",
      ["code", "name", "capital", "area", "flag"],
      counts.countries,
    );
  });

  it("lets a reader see everything, and change nothing", async () => {
    reader = await lab.page(await lab.browser(), lab.readLink);
    await reader.getByTestId("problem-reader").waitFor();
    await reader.getByTestId("tab-cities").waitFor({ timeout: SOON });
    await expect.poll(() => rowsOf(reader, "cities"), { timeout: SOON }).toBe(String(counts.cities100k));
    await expect(exec(reader, "DELETE FROM cities")).rejects.toThrow(/read/);
    expect(await reader.getByTestId("add-row").count()).toBe(0);
    await exec(writer, "UPDATE countries SET name = 'Confoederatio Helvetica' WHERE code = 'CH'");
    await equal([replica, writer, reader], "countries", ["code", "name"], counts.countries);
    await reader.getByTestId("invite").click();
    expect(await reader.getByTestId("write-link").count()).toBe(0);
    expect(await reader.getByTestId("read-link").inputValue()).toBe(lab.readLink);
  });
});
