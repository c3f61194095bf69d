import { expect, test, vi } from "vitest";
import { damaged, ending, explain, ioError, StorageError } from "./errors.ts";
import { SqliteError } from "./statement.ts";
import { instantiate } from "./wasm.ts";

test.each([
  [10, "disk I/O error", "io", "see whether the disk works and has room"],
  [14, "unable to open database file", "io", "see whether the disk works and has room"],
  [
    11,
    "database disk image is malformed",
    "corrupt",
    "delete the data of this page in the browser's settings",
  ],
  [26, "file is not a database", "corrupt", "delete the data of this page in the browser's settings"],
  [13, "database or disk is full", "full", "free some storage"],
])("the engine's error %i, %s, says what a person can do", (code, message, reason, advice) => {
  const told = explain(new SqliteError(message, code));
  expect(told).toBeInstanceOf(StorageError);
  expect(told).toMatchObject({ reason, passing: reason === "full" });
  expect((told as Error).message).toContain(advice);
});

test("what is no fault of the storage stays what it is", () => {
  const error = new SqliteError("no such table: t", 1);
  expect(explain(error)).toBe(error);
});

test("whatever ends a database, a person is told what to do", () => {
  expect(ending(damaged("x"))).toContain("delete the data of this page");
  expect(ending(new SqliteError("out of memory", 7))).toBe(
    "the database stopped (out of memory); reload the page; nothing that was saved is lost",
  );
});

test("a browser that has no room says so in its own way", () => {
  expect(ioError(new DOMException("no", "QuotaExceededError")).reason).toBe("full");
  expect(ioError(new DOMException("the connection is closing", "InvalidStateError")).message).toContain(
    "the browser's storage failed (the connection is closing); reload the page",
  );
});

test("an engine that cannot be loaded is told as what it is", async () => {
  vi.spyOn(console, "error").mockImplementation(() => {}); // of the engine's loader
  await expect(instantiate({ wasmBinary: Uint8Array.of(1, 2, 3) })).rejects.toThrow(
    /the database engine, a file of this page, could not be loaded \(.*\); see whether the server can be reached/,
  );
});
