import { expect, it } from "vitest";
import { noRoom } from "../engine/errors.ts";
import { describe } from "./failures.ts";

it("a full storage gets the advice for it", () => {
  expect(describe(noRoom(undefined))).toMatchObject({ title: "The browser's storage is full" });
});
