// A signaling server that asks for a join token: the link brings it along, also to those who are invited.

import { afterAll, beforeAll, expect, it } from "vitest";
import { equal, exec, Lab, opened, SOON } from "./lab.ts";
import type { Program } from "./process.ts";

const token = "the-token.of~this_test";
const columns = ["id", "text", "done"];

let lab: Lab;
let signal: Program;

beforeAll(async () => {
  lab = await Lab.start();
  signal = await lab.signal("--join-token", token);
});

afterAll(() => lab?.stop());

it("takes in whoever has a link with the token, and says to others what they lack", async () => {
  const link = lab.link.replace("#", `?token=${token}#`);
  const browser = await lab.browser();
  const first = await lab.page(browser, link);
  await first.getByTestId("first-table").click();
  await first.getByTestId("tab-notes").waitFor();
  await exec(first, "INSERT INTO notes(id, text) VALUES ('1', 'by a member')");

  await first.getByTestId("invite").click();
  const invite = await first.getByTestId("write-link").inputValue();
  expect(invite).toBe(link);
  const second = await lab.page(await lab.browser(), invite);
  await equal([first, second], "notes", columns, 1);

  const stranger = await lab.page(await lab.browser());
  await stranger.getByText("asks for a join token").first().waitFor({ timeout: SOON });
  // The link that is pasted brings the token to a page that has none.
  await stranger.goto(lab.base);
  await stranger.getByTestId("join-link").fill(link);
  await stranger.getByTestId("join-link").press("Enter");
  await opened(stranger);
  await equal([first, stranger], "notes", columns, 1);

  // Without a server the page opens from what the browser keeps, the token in its address notwithstanding.
  await second.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
  await signal.stop();
  await second.reload();
  await opened(second);
  await equal([second], "notes", columns, 1);
});
