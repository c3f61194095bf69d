import { expect, it } from "vitest";
import { damaged, noRoom } from "../engine/errors.ts";
import { describe } from "./failures.ts";

it("a full storage gets the advice for it", () => {
  expect(describe(noRoom(undefined))).toMatchObject({ title: "The browser's storage is full" });
});

it("any other failure is told as a sentence", () => {
  expect(describe(damaged("file is not a database"))).toMatchObject({
    title: "The room could not be opened",
    advice: expect.stringMatching(
      /^This browser's copy of the database is damaged .* comes back from them\.$/,
    ),
  });
});
