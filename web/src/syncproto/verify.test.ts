// Who asks, and what is sent again.

import { expect, test } from "vitest";
import { textString } from "../changeset/value.ts";
import { Core } from "./core.ts";
import { type DigestContent, DigestTables } from "./digest.ts";
import { CodeFlow, CodeMalformed } from "./errors.ts";
import {
  type Message,
  MinMaxMessage,
  ProofLen,
  TypeChanges,
  TypeDigestAnswer,
  TypeDigestRequest,
  TypeErrorMessage,
  TypeHello,
  TypeResend,
} from "./message.ts";
import type { Ready } from "./ops.ts";
import { EntryEnd } from "./vector.ts";

const self = "ff".repeat(16);
const site = (n: number) => `0${n}`.repeat(16);
const content: DigestContent = { kind: DigestTables, vector: new Map(), tables: [], parts: [] };
const place = "ab".repeat(16);

function newCore(writer = true): Core {
  const schemaHash = new Uint8Array(32);
  return new Core({
    site: self,
    writer,
    own: 9,
    newest: 9,
    vector: new Map(),
    schemaHash,
    seed: 1n,
    maxMessage: 0,
  });
}

function live(c: Core, id: number): Ready {
  const proof = new Uint8Array(ProofLen);
  c.open(id, { remote: site(id), proof, resume: 0 });
  c.step(id, {
    type: TypeHello,
    site: site(id),
    writer: true,
    feed: true,
    busy: false,
    proof,
    schemaHash: new Uint8Array(32),
    maxMessage: MinMaxMessage,
    resume: 0,
    neighbours: [],
    vector: new Map([[self, 9]]),
  });
  return c.ready();
}

const ask = (id: number): Message => ({ type: TypeDigestRequest, id, table: "", prefixes: [] });
const resend: Message = { type: TypeResend, table: "t", places: [place] };
const errorOf = (r: Ready) => r.sends.map((s) => s.message).find((m) => m.type === TypeErrorMessage)?.code;

test("looks take turns, one at a time, and half of the time at most", () => {
  const c = newCore();
  for (const id of [1, 2, 3]) live(c, id);
  for (const id of [1, 2, 3]) c.step(id, ask(10 * id));
  c.step(3, resend);
  const turns: unknown[] = [];
  let answered: object | undefined;
  for (const millis of [5, 200, 5, 5]) {
    let r = c.ready();
    if (answered) expect(r.sends).toContainEqual(answered);
    let pause = 0;
    for (; !r.look && pause < 20; pause++) {
      c.tick();
      r = c.ready();
    }
    const { look } = r;
    if (!look) throw new Error("no look");
    expect(c.ready().look).toBeUndefined();
    turns.push([look.link, look.resend ? "resend" : "digest", pause]);
    c.lookDone({ id: look.id, answer: look.digest && content, entries: [], millis });
    answered = look.digest && {
      link: look.link,
      message: { ...content, type: TypeDigestAnswer, id: 10 * look.link },
    };
  }
  // 205 ms are forgotten at 25 a tick, down to less than 25.
  expect(turns).toEqual([
    [1, "digest", 0],
    [2, "digest", 0],
    [3, "resend", 8],
    [3, "digest", 0],
  ]);
});

test("a second question before the first is answered, and an answer to nothing, end the link", () => {
  const two = newCore();
  live(two, 1);
  two.step(1, ask(1));
  two.ready();
  two.step(1, ask(2));
  expect(errorOf(two.ready())).toBe(CodeFlow);
  const none = newCore();
  live(none, 1);
  none.step(1, { ...content, type: TypeDigestAnswer, id: 1 });
  expect(errorOf(none.ready())).toBe(CodeMalformed);
});

test("rows that are sent again go out though they are covered, with claims behind them; a reader sends none", () => {
  const reader = newCore(false);
  live(reader, 1);
  reader.step(1, resend);
  expect(reader.ready().look).toBeUndefined();
  const c = newCore();
  const [read] = live(c, 1).reads;
  const end = {
    link: 1,
    entries: [],
    next: { l: 9, seq: EntryEnd },
    end: true,
    own: 9,
    newest: 9,
    remaining: 0,
  };
  c.readDone({ ...end, id: read?.id ?? 0 });
  c.ready();
  c.step(1, resend);
  const { look } = c.ready();
  const change = {
    table: "t",
    pk: Uint8Array.of(1, 1),
    cid: "v",
    val: textString("x"),
    colVersion: 1n,
    dbVersion: 5,
    site: self,
    cl: 1n,
    seq: 0n,
  };
  const entry = { l: 5, origin: site(2), version: 4, changes: [change], held: false };
  c.lookDone({ id: look?.id ?? 0, answer: undefined, entries: [entry], millis: 1 });
  const r = c.ready();
  expect(r.sends.map((s) => s.message)).toMatchObject([
    { type: TypeChanges, reached: 9, claims: undefined, groups: [{ origin: site(2), version: 4 }] },
  ]);
  c.readDone({ ...end, id: r.reads[0]?.id ?? 0 });
  expect(c.ready().sends.map((s) => s.message)).toMatchObject([
    { type: TypeChanges, claims: expect.any(Map) },
  ]);
});
