// The golden vectors that Go and TypeScript share.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fromHex, toHex } from "../changeset/change.ts";
import { marshal, parse } from "./codec.ts";
import { codeName, ProtocolError } from "./errors.ts";
import { Assembler, cutFrame, FrameLast, FramePing, FramePong, MaxFrame } from "./frame.ts";
import { MaxMessage, MinMaxMessage } from "./message.ts";
import { describeMessage } from "./testing/describe.ts";

// The lines of a file of vectors, each cut at its tabs.
function golden(name: string): string[][] {
  const url = new URL(`../../../pkg/mesh/syncproto/testdata/${name}.txt`, import.meta.url);
  const lines = readFileSync(url, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  expect(lines.length).toBeGreaterThan(0);
  return lines.map((line) => line.split("\t"));
}

test.each(golden("messages"))("message %s", (_, described = "", hex = "") => {
  const m = parse(fromHex(hex));
  expect(describeMessage(m)).toEqual(JSON.parse(described));
  expect(toHex(marshal(m))).toBe(hex);
});

test.each(golden("malformed"))("malformed %s", (_, hex = "", code) => {
  let error: unknown;
  try {
    parse(fromHex(hex));
  } catch (e) {
    error = e;
  }
  expect(error).toBeInstanceOf(ProtocolError);
  expect(codeName((error as ProtocolError).code)).toBe(code);
});

test.each(golden("frames"))("frames %s", (_, described = "", hex = "") => {
  const assembler = new Assembler(1 << 26);
  const got: object[] = [];
  for (const frame of hex.split(" ")) {
    try {
      const f = assembler.frame(fromHex(frame));
      const token = "token" in f ? f.token.toString(16).padStart(16, "0") : "";
      if (f.kind === FrameLast) got.push({ message: toHex(f.message) });
      else
        got.push(
          f.kind === FramePing ? { ping: token } : f.kind === FramePong ? { pong: token } : { part: true },
        );
    } catch (error) {
      got.push({ error: codeName((error as ProtocolError).code) });
    }
  }
  expect(got).toEqual(JSON.parse(described));
});

test("a message in frames comes out whole", () => {
  for (const size of [1, MaxFrame - 1, MaxFrame, 3 * (MaxFrame - 1), 100_000]) {
    const message = Uint8Array.from({ length: size }, (_, i) => i % 251);
    const assembler = new Assembler(size);
    let out: Uint8Array | undefined;
    for (let at: number | undefined = 0; at !== undefined; ) {
      const { frame, next } = cutFrame(message, at);
      expect(frame.length).toBeLessThanOrEqual(MaxFrame);
      const f = assembler.frame(frame);
      if (f.kind === FrameLast) out = f.message;
      at = next;
    }
    expect(toHex(out ?? new Uint8Array())).toBe(toHex(message));
    const { frame } = cutFrame(new Uint8Array(size), 0);
    expect(() => new Assembler(Math.min(size, MaxFrame - 1) - 1).frame(frame)).toThrow("longer than");
  }
});

test("bytes cut anywhere never parse, and never fail otherwise", () => {
  for (const [name = "", , hex = ""] of golden("messages")) {
    const whole = fromHex(hex);
    for (let n = 0; n < whole.length; n++) {
      expect(() => parse(whole.subarray(0, n)), `${name} cut to ${n} bytes`).toThrow(ProtocolError);
    }
  }
});

test("large messages are for those who claim to be writers", () => {
  const fits = (hello: string | undefined, size: number) => {
    const assembler = new Assembler(MaxMessage);
    if (hello !== undefined) assembler.frame(Uint8Array.of(FrameLast, ...fromHex(hello)));
    try {
      for (let left = size; left > 0; left -= MaxFrame - 1) {
        assembler.frame(new Uint8Array(1 + Math.min(left, MaxFrame - 1)));
      }
      return true;
    } catch {
      return false;
    }
  };
  const named = (name: string) => golden("messages").find(([n]) => n === name)?.[2];
  for (const hello of [undefined, named("hello-reader"), named("have-all")]) {
    expect(fits(hello, MinMaxMessage)).toBe(true);
    expect(fits(hello, MinMaxMessage + 1)).toBe(false);
  }
  expect(fits(named("hello-writer"), MaxMessage)).toBe(true);
  expect(fits(named("hello-writer"), MaxMessage + 1)).toBe(false);
});
