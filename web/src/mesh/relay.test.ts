// Relays of several peers whose links are arrays.

import { expect, test } from "vitest";
import { newPeerID, type PeerID } from "../signaling/id.ts";
import { parse } from "../syncproto/codec.ts";
import { TypeRelay } from "../syncproto/message.ts";
import { type Neighbour, RelayLimit, Relays } from "./relay.ts";

const sealed = (n: number) => `${"A".repeat(40)}${String(n).padStart(6, "A")}AA`;

/** A peer, its links, and what it got. */
class Peer {
  readonly id = newPeerID();
  readonly neighbours: Neighbour[] = [];
  readonly limits = new Map<number, RelayLimit>();
  readonly got: { from: PeerID; sealed: string; via: number }[] = [];
  knows = true;
  came = 0;
  now = 0;
  readonly relays = new Relays({
    own: this.id,
    neighbours: () => this.neighbours,
    receive: (from, text, via) => {
      if (this.knows) this.got.push({ from, sealed: text, via });
      return this.knows;
    },
    random: () => 0.5,
  });

  arrive(link: number, bytes: Uint8Array): void {
    this.came++;
    const limit = this.limits.get(link) as RelayLimit;
    const m = parse(bytes);
    if (m.type !== TypeRelay) throw new Error("this is no relay");
    if (limit.takes(bytes.length, this.now)) this.relays.take(link, m, limit, this.now);
    else this.relays.drop();
  }
}

const queue: (() => void)[] = [];
let links = 0;

function link(a: Peer, b: Peer, over: Partial<Neighbour> = {}): number {
  const id = ++links;
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.limits.set(id, new RelayLimit());
    const send = (bytes: Uint8Array) => queue.push(() => to.arrive(id, bytes));
    from.neighbours.push({ link: id, peer: to.id, healthy: true, waiting: 0, send, ...over });
  }
  return id;
}

function run(): number {
  let steps = 0;
  for (let step = queue.shift(); step; step = queue.shift()) {
    step();
    if (++steps > 10_000) throw new Error("it does not end");
  }
  return steps;
}

function peers(n: number): Peer[] {
  return Array.from({ length: n }, () => new Peer());
}

test("a common neighbour passes an envelope on, and the answer goes the same way", () => {
  const [a, b, c] = peers(3) as [Peer, Peer, Peer];
  const ac = link(a, c);
  const cb = link(c, b);
  expect(a.relays.reaches(b.id)).toBe(true);
  expect(a.relays.reaches(c.id)).toBe(false); // c alone cannot pass on to c
  expect(a.relays.send(b.id, sealed(1))).toBe(true);
  run();
  expect(b.got).toEqual([{ from: a.id, sealed: sealed(1), via: cb }]);
  b.relays.send(a.id, sealed(2));
  run();
  expect(a.got).toEqual([{ from: b.id, sealed: sealed(2), via: ac }]);
  expect(c.relays.figures).toEqual({ sent: 0, received: 0, passed: 2, dropped: 0 });
});

test("an envelope finds its way over three members that are no neighbours of its receiver, and not over more", () => {
  const chain = peers(7);
  for (let i = 0; i < 6; i++) link(chain[i] as Peer, chain[i + 1] as Peer);
  const [first] = chain as [Peer];
  for (const [to, arrives] of [
    [5, true],
    [6, false],
  ] as const) {
    const last = chain[to] as Peer;
    first.relays.send(last.id, sealed(to));
    run();
    expect(last.got.length).toBe(arrives ? 1 : 0);
  }
});

test("in a full mesh, an envelope for nobody ends, and goes once through each", () => {
  const all = peers(5);
  all.forEach((a, i) => {
    for (const b of all.slice(i + 1)) link(a, b);
  });
  all[0]?.relays.send(newPeerID(), sealed(1));
  run();
  const passed = all.reduce((sum, p) => sum + p.relays.figures.passed, 0);
  expect(passed).toBeLessThanOrEqual(4);
  expect(passed).toBeGreaterThan(1);
  expect(Math.max(...all.map((p) => p.came))).toBeLessThanOrEqual(4);
});

test("a flood is dropped where it comes in, and takes little from those behind", () => {
  const [hostile, a, b] = peers(3) as [Peer, Peer, Peer];
  link(hostile, a);
  const ab = link(a, b);
  for (let i = 0; i < 2000; i++) {
    hostile.relays.send(b.id, sealed(i));
    run();
  }
  const { passed, dropped } = a.relays.figures;
  expect(passed).toBe(128); // a quarter of the burst
  expect(passed + dropped).toBe(2000);
  expect(b.limits.get(ab)?.takes(256 * 1024, 0)).toBe(true);
  a.now = 1000;
  hostile.relays.send(b.id, sealed(5000));
  run();
  expect(a.relays.figures.passed).toBe(129); // and later it is as it was
});

test("links that are silent or full are left out; who is no member is dropped", () => {
  const [a, b, c, d] = peers(4) as [Peer, Peer, Peer, Peer];
  link(a, c, { healthy: false });
  link(a, d, { waiting: 256 });
  expect(a.relays.reaches(b.id)).toBe(true);
  expect(a.relays.send(b.id, sealed(1))).toBe(false);
  expect(run()).toBe(0);
  link(a, b);
  b.knows = false;
  link(a, c);
  link(c, b);
  c.relays.send(b.id, sealed(2)); // not over its own link to b, over a
  run();
  expect(b.relays.figures).toMatchObject({ received: 0, dropped: 1 });
});
