// What a hostile member sends to a browser costs it its own link; the one beside it goes on.

import { afterEach, beforeEach, expect, test } from "vitest";
import type { Change } from "../changeset/change.ts";
import { pack } from "../changeset/pack.ts";
import { integer, textString } from "../changeset/value.ts";
import { memoryStore } from "../engine/testing/memory.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { codeName } from "../syncproto/errors.ts";
import {
  type Changes,
  type Have,
  type Hello,
  MaxNeighbours,
  MaxVectorSites,
  type Message,
  MinMaxMessage,
  ProofLen,
  type Schema,
  TypeChanges,
  TypeErrorMessage,
  TypeHave,
  TypeHello,
  TypeSchema,
} from "../syncproto/message.ts";
import { ReservedSites, WindowMessages } from "../syncproto/ops.ts";
import { Driver, type DriverEvents } from "./driver.ts";

const STRANGER = "5a".repeat(16);
const schema = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')";

/** A driver with two links: 1 to another driver, 2 to a stranger, which sends what the test likes. */
let a: Driver;
let b: Driver;
let said: Message[]; // to the stranger
let closed: number[]; // links that a closed
let notices: string[];
let failures: string[];
let timer: ReturnType<typeof setInterval>;

beforeEach(async () => {
  [said, closed, notices, failures] = [[], [], [], []];
  const events = (self: () => Driver, other: () => Driver): DriverEvents => ({
    send: (link, bytes) => {
      if (link === 2) said.push(parse(bytes.slice()));
      else queueMicrotask(() => other().message(link, bytes));
    },
    closeLink: (link) => {
      closed.push(link);
      self().closed(link);
    },
    changed: () => {},
    status: () => {},
    notice: (sentence) => {
      if (self() === a) notices.push(sentence); // b may find its vector full, too
    },
    renewed: () => {},
    failed: (error) => failures.push(String(error)),
  });
  const [storeA, storeB] = [(await memoryStore()).store, (await memoryStore()).store];
  a = await Driver.start(
    storeA,
    true,
    1n,
    events(
      () => a,
      () => b,
    ),
  );
  b = await Driver.start(
    storeB,
    true,
    2n,
    events(
      () => b,
      () => a,
    ),
  );
  timer = setInterval(() => {
    a.tick(1);
    b.tick(1);
  }, 2);
  a.open(1, a.site, b.site, new Uint8Array(ProofLen));
  b.open(1, b.site, a.site, new Uint8Array(ProofLen));
  await a.exec("schema", schema, []);
  await goOn();
  a.open(2, a.site, STRANGER, new Uint8Array(ProofLen));
});

afterEach(async () => {
  clearInterval(timer);
  await a.stop();
  await b.stop();
});

let rows = 1000;

/** Checks that rows go both ways between the drivers. */
async function goOn(): Promise<void> {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const id = ++rows;
    const holds = (d: Driver) =>
      d.query(`SELECT v FROM t WHERE id = ${id}`, []).then(
        (r) => r.rows,
        () => [],
      );
    if (from === b)
      await expect
        .poll(() =>
          b.query("SELECT 1 FROM t", []).then(
            () => true,
            () => false,
          ),
        )
        .toBe(true);
    await from.exec(`row ${id}`, `INSERT INTO t VALUES (${id}, 'goes on')`, []);
    await expect.poll(() => holds(to), { interval: 5 }).toEqual([["goes on"]]);
  }
  expect(failures).toEqual([]);
}

const hello = (writer: boolean, part: Partial<Hello> = {}): Hello => ({
  type: TypeHello,
  site: STRANGER,
  writer,
  feed: true,
  busy: false,
  proof: new Uint8Array(writer ? ProofLen : 0),
  schemaHash: new Uint8Array(32),
  maxMessage: MinMaxMessage,
  resume: 0,
  neighbours: [],
  vector: new Map(),
  ...part,
});

const change = (id: number, part: Partial<Change> = {}): Change => ({
  table: "t",
  pk: pack([integer(id)]),
  cid: "v",
  val: textString("evil"),
  colVersion: 1n,
  dbVersion: 0,
  site: STRANGER,
  cl: 1n,
  seq: 0n,
  ...part,
});

const changes = (version: number, ...list: Change[]): Changes => ({
  type: TypeChanges,
  reached: 0,
  remaining: 0,
  groups: [{ origin: STRANGER, version, changes: list }],
  claims: undefined,
  deps: undefined,
  spans: [],
});

const have = (part: Partial<Have> = {}): Have => ({
  type: TypeHave,
  feed: false,
  busy: false,
  applied: 0,
  delta: new Map(),
  neighbours: undefined,
  ...part,
});

const tables = (n: number): Schema => ({
  type: TypeSchema,
  hash: new Uint8Array(32).fill(1 + (n % 250)),
  generation: 0,
  tables: [
    { name: `t${n % 10}`, sql: `CREATE TABLE t${n % 10} (id INTEGER PRIMARY KEY NOT NULL)`, columns: [] },
  ],
});

const sites = (n: number) => Array.from({ length: n }, (_, i) => `1f${i.toString(16).padStart(30, "0")}`);
const send = (...list: Message[]) => {
  for (const m of list) a.message(2, marshal(m));
};

test.each<[string, string, () => void]>([
  ["noise", "malformed", () => a.message(2, Uint8Array.of(99, 1, 2))],
  ["no hello", "malformed", () => send(have())],
  ["changes before the hello", "malformed", () => send(changes(1, change(1)), hello(true))],
  ["two hellos", "malformed", () => send(hello(false), hello(false))],
  ["a second hello, as a writer", "malformed", () => send(hello(false), hello(true), changes(1, change(1)))],
  ["another site", "malformed", () => send(hello(false, { site: "00".repeat(16) }))],
  ["the own site", "same-site", () => send(hello(false, { site: a.site }))],
  ["a reader that writes", "read-only", () => send(hello(false), changes(1, change(1)))],
  ["a reader with a schema", "read-only", () => send(hello(false), tables(1))],
  ["many neighbours", "malformed", () => send(hello(false, { neighbours: sites(MaxNeighbours + 1) }))],
  ["a version beyond 2^53-1", "malformed", () => send(hello(true), changes(2 ** 53, change(1)))],
  [
    "ten million sites",
    "malformed",
    () => {
      send(hello(true));
      a.message(2, Uint8Array.of(TypeHave, 0, 0, 0x80, 0xad, 0xe2, 4, ...new Uint8Array(1000)));
    },
  ],
  [
    "a reader's claim of more than was written here",
    "stale-copy",
    () => send(hello(false), have({ delta: new Map([[a.site, 2 ** 50]]) })),
  ],
  ["a count of messages never sent", "malformed", () => send(hello(false), have({ applied: 1000 }))],
  [
    "more messages than the window",
    "flow",
    () => {
      send(hello(true));
      for (let i = 0; i < 2 * WindowMessages; i++) send(changes(1 + i, change(i)));
    },
  ],
])("%s ends the link as %s", async (_, code, attack) => {
  attack();
  expect(closed).toEqual([2]);
  const last = said.at(-1);
  expect(last?.type === TypeErrorMessage && codeName(last.code)).toBe(code);
  const before = said.length;
  send(have(), hello(true)); // nothing is listened to any more
  expect(said.length).toBe(before);
  await goOn();
  if (code !== "flow") expect((await a.query("SELECT id FROM t WHERE v = 'evil'", [])).rows).toEqual([]);
});

test("numbers beyond the bound are put aside, by both alike", async () => {
  send(hello(true));
  const edge = { colVersion: 2n ** 63n - 1n };
  send(changes(1, change(1, edge), change(2, { cl: 2n ** 63n - 1n }), change(3, { seq: -1n }), change(4)));
  for (const d of [a, b]) {
    const evil = () => d.query("SELECT id FROM t WHERE v = 'evil'", []).then((r) => r.rows);
    await expect.poll(evil).toEqual([[4n]]);
    const parked = () => d.query("SELECT count(*) FROM crmesh_parked", []).then((r) => r.rows);
    await expect.poll(parked).toEqual([[3n]]);
  }
  expect(notices.join()).toContain("3 changes do not fit");
  await goOn();
});

test("floods of haves and schemas, and one that never answers, keep nobody else waiting", async () => {
  send(hello(true, { neighbours: sites(MaxNeighbours) }));
  const invented = sites(50);
  for (let i = 0; i < 2000; i++) {
    const delta = new Map([[invented[i % 50] ?? "", 1 + i]]);
    send(have({ feed: i % 2 === 0, busy: i % 3 === 0, delta, neighbours: sites(i % 20) }), tables(i));
    if (i % 500 === 250) await goOn();
  }
  for (let i = 0; i < 30; i++) await goOn();
  const unanswered = said.filter((m) => m.type === TypeChanges).length;
  expect(unanswered).toBeGreaterThan(0);
  expect(unanswered).toBeLessThanOrEqual(WindowMessages);
  expect(closed).toEqual([]);
});

test("claims of as many sites as a vector has leave places for those that are linked", async () => {
  send(hello(true));
  const claims = new Map(sites(MaxVectorSites - 1).map((site) => [site, 1]));
  send({ ...changes(1), groups: [], claims, deps: new Map() });
  const known = () => a.query("SELECT count(*) FROM crmesh_vector", []).then((r) => Number(r.rows[0]?.[0]));
  await expect.poll(known).toBeGreaterThan(MaxVectorSites - ReservedSites - 10);
  await goOn();
  send({ ...changes(1), groups: [], claims: new Map([[STRANGER, 7]]), deps: new Map() });
  const own = () =>
    a.query(`SELECT version FROM crmesh_vector WHERE site = x'${STRANGER}'`, []).then((r) => r.rows);
  await expect.poll(own).toEqual([[7n]]);
  expect(await known()).toBeLessThan(MaxVectorSites - ReservedSites + 10);
  expect(notices.filter((n) => n.includes("more databases than")).length).toBe(1);
  await goOn();
});
