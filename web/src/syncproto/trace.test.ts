// The traces that Go and TypeScript share: the same commands, the same output.

import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { runTrace } from "./testing/trace.ts";

const traces = new URL("../../../pkg/mesh/syncproto/testdata/traces/", import.meta.url);
const files = readdirSync(traces).filter((name) => name.endsWith(".txt"));

test("there are traces", () => {
  expect(files.length).toBeGreaterThan(10);
});

test.each(files)("%s", (name) => {
  const text = readFileSync(new URL(name, traces), "utf8");
  expect(runTrace(text)).toBe(text);
});
