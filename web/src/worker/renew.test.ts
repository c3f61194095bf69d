// Drivers of databases that were put back, or are copies of each other: they take new site ids by themselves, and lose nothing.

import { afterEach, beforeEach, expect, test } from "vitest";
import { pack } from "../changeset/pack.ts";
import { integer } from "../changeset/value.ts";
import { Kept } from "../engine/testing/kept.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { CodeStaleCopy } from "../syncproto/errors.ts";
import {
  type Hello,
  type Message,
  ProofLen,
  TypeBye,
  TypeChanges,
  TypeErrorMessage,
  TypeHello,
} from "../syncproto/message.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { SiteID } from "../syncproto/vector.ts";
import { Driver, type DriverEvents, type DriverOptions, type DriverStatus } from "./driver.ts";
import { MaxRenewals, renewing } from "./renewals.ts";
import type { Store } from "./store.ts";

/** How long a state may take to come about, in ms. */
const SOON = 60_000;

const schema = "CREATE TABLE t (id PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t')";
const STRANGER = "5a".repeat(16);

/** A driver on a file that is kept, and what it has told. */
class Peer {
  driver!: Driver;
  readonly kept: Kept;
  readonly closed: [LinkID, string | undefined][] = [];
  readonly notices: string[] = [];
  readonly lines: string[] = [];
  readonly failures: string[] = [];
  readonly said: Uint8Array[] = []; // to strangers
  status: DriverStatus | undefined;
  #requests = 0;

  private constructor(kept: Kept) {
    this.kept = kept;
  }

  static async on(kept: Kept, options: DriverOptions = {}, wrap = (s: Store) => s): Promise<Peer> {
    const peer = new Peer(kept);
    const { store } = await kept.open();
    const events: DriverEvents = {
      send: (link, bytes) => carry(peer, link, bytes),
      closeLink: (link, reason) => {
        peer.closed.push([link, reason]);
        cut(link, peer);
      },
      changed: () => {},
      status: (status) => {
        peer.status = status;
      },
      notice: (sentence) => peer.notices.push(sentence),
      renewed: (_, line) => {
        if (line !== undefined) peer.lines.push(line);
      },
      failed: (error) => peer.failures.push(error instanceof Error ? error.message : String(error)),
    };
    peer.driver = await Driver.start(wrap(store), true, 7n, events, options);
    peers.push(peer);
    return peer;
  }

  exec(sql: string): Promise<unknown> {
    return this.driver.exec(`${crypto.randomUUID()} ${this.#requests++}`, sql, []);
  }

  async content(): Promise<unknown> {
    const sql = `SELECT "table", pk, cid, val, col_version, cl FROM crsql_changes ORDER BY 1, 2, 3`;
    return (await this.driver.query(sql, [])).rows;
  }

  async ids(): Promise<unknown[]> {
    return (await this.driver.query("SELECT id FROM t ORDER BY id", [])).rows.map(([id]) => id);
  }

  async stop(): Promise<void> {
    peers.splice(peers.indexOf(this), 1);
    for (const [id, ends] of links) if (ends.includes(this)) cut(id, this);
    await this.driver.stop();
  }

  /** A stranger with a link to this peer says hello, and that it holds `version` of a site. Returns the code of the answer's error. */
  claims(writer: boolean, site: SiteID, version: number): number | undefined {
    const link = nextLink++;
    this.driver.open(link, this.driver.site, STRANGER, new Uint8Array(ProofLen));
    this.said.length = 0;
    this.driver.message(link, marshal(hello(writer, new Map([[site, version]]))));
    const answer = this.said.map((b) => parse(b)).find((m) => m.type === TypeErrorMessage);
    this.driver.closed(link);
    return answer?.type === TypeErrorMessage ? answer.code : undefined;
  }
}

const hello = (writer: boolean, vector: ReadonlyMap<SiteID, number>, site = STRANGER): Hello => ({
  type: TypeHello,
  site,
  writer,
  feed: true,
  busy: false,
  proof: new Uint8Array(writer ? ProofLen : 0),
  schemaHash: new Uint8Array(32),
  maxMessage: 1 << 20,
  resume: 0,
  neighbours: [],
  vector,
});

let peers: Peer[];
let links: Map<LinkID, [Peer, Peer]>;
let nextLink: LinkID;
let meeting: boolean;
let timer: ReturnType<typeof setInterval>;

beforeEach(() => {
  [peers, links, nextLink, meeting] = [[], new Map(), 1, false];
  timer = setInterval(() => {
    for (const p of peers) p.driver.tick(1);
    if (meeting) meetAll();
  }, 2);
});

afterEach(async () => {
  clearInterval(timer);
  const failures = peers.flatMap((p) => p.failures);
  for (const p of [...peers]) await p.stop();
  expect(failures).toEqual([]);
});

function carry(from: Peer, link: LinkID, bytes: Uint8Array): void {
  const ends = links.get(link);
  if (!ends) {
    from.said.push(bytes.slice());
    return;
  }
  const to = ends[0] === from ? ends[1] : ends[0];
  const copy = bytes.slice();
  queueMicrotask(() => to.driver.message(link, copy));
}

// What was sent before still arrives.
function cut(link: LinkID, by: Peer): void {
  const ends = links.get(link);
  links.delete(link);
  by.driver.closed(link);
  if (ends) setTimeout(() => (ends[0] === by ? ends[1] : ends[0]).driver.closed(link));
}

// Makes a link of each two that have none, as the mesh does.
function meetAll(): void {
  peers.forEach((a, i) => {
    for (const b of peers.slice(0, i)) {
      if ([...links.values()].some((ends) => ends.includes(a) && ends.includes(b))) continue;
      const link = nextLink++;
      links.set(link, [a, b]);
      const [siteA, siteB] = [a.driver.site, b.driver.site];
      a.driver.open(link, siteA, siteB, new Uint8Array(ProofLen));
      b.driver.open(link, siteB, siteA, new Uint8Array(ProofLen));
    }
  });
}

/** Waits until all hold the same rows, `ids` among them. */
async function equal(ids: readonly unknown[]): Promise<void> {
  await expect
    .poll(
      async () => {
        const all = await Promise.all(peers.map(async (p) => JSON.stringify(await p.content(), plain)));
        const held = await Promise.all(peers.map((p) => p.ids()));
        return new Set(all).size === 1 && held.every((h) => ids.every((id) => h.includes(id)));
      },
      { timeout: SOON, interval: 10 },
    )
    .toBe(true);
}

const plain = (_: string, v: unknown) => (typeof v === "bigint" ? `${v}n` : v);

test("a database that was put back, and written to since, rejoins: nothing is lost, and one line is logged", async () => {
  const [x, b] = [await Peer.on(new Kept()), await Peer.on(new Kept())];
  await Peer.on(new Kept());
  meeting = true;
  await x.exec(schema);
  await x.exec("INSERT INTO t VALUES ('before', 1), ('x', 1)");
  await equal(["before"]);
  const backup = x.kept.copy();
  for (let i = 0; i < 9; i++) await x.exec(`INSERT INTO t VALUES ('lost ${i}', 1)`);
  await equal(["lost 8"]);
  const { site } = x.driver;
  await x.stop();
  meeting = false;
  const again = await Peer.on(backup);
  expect(again.driver.site).toBe(site);
  await again.exec("INSERT INTO t VALUES ('new', 1)");
  await again.exec("UPDATE t SET v = 'new' WHERE id = 'x'");
  meeting = true;
  await equal(["new", "lost 0", "lost 8"]);
  const now = again.driver.site;
  expect(now).not.toBe(site);
  expect(again.lines).toEqual([
    expect.stringMatching(
      `^the database goes on under a new site id: a peer has seen .*; old=${site} new=${now} entries=\\d+ reasserted=2 took=\\d+ms$`,
    ),
  ]);
  expect((await b.driver.query("SELECT v FROM t WHERE id = 'x'", [])).rows).toEqual([["new"]]);
  // What is written from now on is the new site's.
  await again.exec("INSERT INTO t VALUES ('later', 1)");
  await b.exec("INSERT INTO t VALUES ('of b', 1)");
  await equal(["later", "of b"]);
  for (const p of peers) await expect.poll(() => p.status?.synced, { timeout: SOON }).toBe(true);
  expect(again.status).toMatchObject({ site: now, renewals: 1 });
  expect(b.status?.vector.get(now)).toBe(again.status?.own);
  expect(again.notices).toEqual([]);
});

test("two databases of one site that meet take an id of their own each, and all have all rows", async () => {
  const a = await Peer.on(new Kept());
  await a.exec(schema);
  await a.exec("INSERT INTO t VALUES ('before', 1), ('x', 1)");
  const twin = a.kept.copy();
  await a.stop();
  const one = await Peer.on(a.kept);
  const two = await Peer.on(twin);
  const third = await Peer.on(new Kept());
  expect(two.driver.site).toBe(one.driver.site);
  for (const [name, p] of [
    ["one", one],
    ["two", two],
  ] as const) {
    await p.exec(`INSERT INTO t VALUES ('of ${name}', 1)`);
    await p.exec(`UPDATE t SET v = '${name}' WHERE id = 'x'`);
  }
  meeting = true;
  await equal(["before", "of one", "of two"]);
  await one.exec("INSERT INTO t VALUES ('later, of one', 1)");
  await two.exec("INSERT INTO t VALUES ('later, of two', 1)");
  await equal(["later, of one", "later, of two"]);
  expect(two.driver.site).not.toBe(one.driver.site);
  for (const p of [one, two]) expect(p.lines.length).toBeLessThanOrEqual(1);
  expect(one.lines.length + two.lines.length).toBeGreaterThan(0);
  expect(third.lines).toEqual([]);
});

test("while the id is renewed nothing goes out, links are refused, and what is written is not lost", async () => {
  let renew = () => {};
  const held = new Promise<void>((resolve) => {
    renew = resolve;
  });
  const x = await Peer.on(new Kept(), {}, (store) => {
    const own = store.renew.bind(store);
    store.renew = async () => {
      await held;
      return own();
    };
    return store;
  });
  const b = await Peer.on(new Kept());
  await x.exec(schema);
  const { site } = x.driver;
  meeting = true;
  await expect.poll(() => b.status?.synced && b.status.links.length, { timeout: SOON }).toBe(1);
  meeting = false;
  const [link] = [...links.keys()];
  expect(x.claims(true, site, 2 ** 40)).toBe(CodeStaleCopy);
  expect(x.closed.map(([l, reason]) => (l === link ? reason : ""))).toContain(renewing);
  expect(links.size).toBe(0);
  x.said.length = 0;
  await x.exec("INSERT INTO t VALUES ('meanwhile', 1)");
  x.driver.open(1000, site, STRANGER, new Uint8Array(ProofLen));
  expect(x.closed.at(-1)).toEqual([1000, renewing]);
  x.driver.message(1000, marshal(hello(true, new Map())));
  x.driver.tick(20);
  expect(x.said).toEqual([]);
  renew();
  await expect.poll(() => x.lines.length, { timeout: SOON }).toBe(1);
  // A channel that was under way all the time comes with the old name.
  x.driver.open(1001, site, STRANGER, new Uint8Array(ProofLen));
  expect(x.closed.at(-1)).toEqual([1001, renewing]);
  meeting = true;
  await equal(["meanwhile"]);
});

test("what the old core was about to do is not done under the new id", async () => {
  const applied: number[] = [];
  const x = await Peer.on(new Kept(), {}, (store) => {
    const apply = store.apply.bind(store);
    store.apply = (r) => {
      applied.push(r.groups.length);
      return apply(r);
    };
    return store;
  });
  await x.exec(schema);
  const other = "5b".repeat(16);
  const send = (m: Message) => x.driver.message(500, marshal(m));
  x.driver.open(500, x.driver.site, other, new Uint8Array(ProofLen));
  send(hello(true, new Map(), other));
  const changes = [
    {
      table: "t",
      pk: pack([integer(1)]),
      cid: "v",
      val: integer(1),
      colVersion: 1n,
      dbVersion: 0,
      site: other,
      cl: 1n,
      seq: 0n,
    },
  ];
  const groups = [{ origin: other, version: 1, changes }];
  send({
    type: TypeChanges,
    reached: 1,
    remaining: 0,
    groups,
    claims: new Map([[other, 1]]),
    deps: new Map(),
    spans: [],
  });
  x.claims(true, x.driver.site, 2 ** 40); // at once: the apply has not begun
  await expect.poll(() => x.lines.length, { timeout: SOON }).toBe(1);
  await x.exec("INSERT INTO t VALUES ('later', 1)");
  expect(applied).toEqual([]);
  expect((await x.driver.query("SELECT count(*) FROM crmesh_resume", [])).rows).toEqual([[0n]]);
});

test("the other side is told why the link ends", async () => {
  const x = await Peer.on(new Kept());
  await x.exec(schema);
  const other = "5b".repeat(16);
  x.driver.open(500, x.driver.site, other, new Uint8Array(ProofLen));
  x.driver.message(500, marshal(hello(true, new Map(), other)));
  x.claims(true, x.driver.site, 2 ** 40);
  const bye = x.said.map((b) => parse(b)).find((m) => m.type === TypeBye);
  expect(bye).toMatchObject({ sentence: renewing });
});

test("who claims writes that never were causes so many renewals and no more, and a reader none", async () => {
  const x = await Peer.on(new Kept(), { renewalPause: 0 });
  const b = await Peer.on(new Kept());
  await x.exec(schema);
  meeting = true;
  expect(x.claims(false, x.driver.site, 2 ** 40)).toBe(CodeStaleCopy);
  expect(x.notices.at(-1)).toContain("not believed");
  for (let i = 1; i <= MaxRenewals; i++) {
    x.claims(true, x.driver.site, 2 ** 40);
    await expect.poll(() => x.lines.length, { timeout: SOON }).toBe(i);
  }
  const { site } = x.driver;
  expect(x.claims(true, site, 2 ** 40)).toBe(CodeStaleCopy);
  expect(x.notices.at(-1)).toContain("may be at fault");
  await x.exec("INSERT INTO t VALUES ('still there', 1)");
  await equal(["still there"]);
  expect([x.driver.site, x.lines.length, x.status?.renewals]).toEqual([site, MaxRenewals, MaxRenewals]);
  expect(b.lines).toEqual([]);
});

test("a second claim so soon after the first is not followed", async () => {
  const x = await Peer.on(new Kept());
  await x.exec(schema);
  x.claims(true, x.driver.site, 2 ** 40);
  await expect.poll(() => x.lines.length, { timeout: SOON }).toBe(1);
  const { site } = x.driver;
  expect(x.claims(true, site, 2 ** 40)).toBe(CodeStaleCopy);
  expect(x.notices.at(-1)).toContain("so soon after a new id");
  expect(x.driver.site).toBe(site);
});

test("a store that has no new id is asked once, and the driver goes on with those who do not dispute the old one", async () => {
  let asked = 0;
  const x = await Peer.on(new Kept(), {}, (store) => {
    store.renew = async () => {
      asked++;
      return { refused: "it has no room for another" };
    };
    return store;
  });
  const b = await Peer.on(new Kept());
  await x.exec(schema);
  meeting = true;
  await equal([]);
  const { site } = x.driver;
  x.claims(true, site, 2 ** 40);
  await expect.poll(() => links.size, { timeout: SOON }).toBe(1);
  await b.exec("INSERT INTO t VALUES ('goes on', 1)");
  await equal(["goes on"]);
  x.claims(true, site, 2 ** 40);
  expect(x.notices.at(-1)).toContain("it has no room for another");
  expect([asked, x.driver.site, x.lines]).toEqual([1, site, []]);
});

test("a store that fails at it ends the driver, with the reason", async () => {
  const x = await Peer.on(new Kept(), {}, (store) => {
    store.renew = async () => {
      throw new Error("the disk is gone");
    };
    return store;
  });
  x.claims(true, x.driver.site, 2 ** 40);
  await expect.poll(() => x.failures, { timeout: SOON }).toEqual(["the disk is gone"]);
  x.failures.length = 0;
});
