// All members of a room on one machine, in virtual time: what their choices add up to.

import { expect, test } from "vitest";
import { encode64 } from "../signaling/base64.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Meta } from "../signaling/messages.ts";
import { type LinkNow, Neighbours } from "./neighbours.ts";
import { defaultTiming } from "./timing.ts";

const { repair, forget, dead } = defaultTiming;
const step = 500; // ms
const piece = 100; // ms of the work at an attempt, done at once
const answered = 200; // ms of work until the other side has answered
const opened = 500; // ms of work until the link is open

// Numbers by chance, the same ones each time, from 0 to under 1.
function chance(): () => number {
  let x = 1;
  return () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return x / 2 ** 32;
  };
}

class Room {
  readonly near = new Map<PeerID, Neighbours>(); // of those that live
  readonly #metas = new Map<PeerID, Meta>();
  readonly #links = new Set<string>();
  readonly #tries = new Map<string, number>(); // work that went into an attempt
  readonly #chance = chance();
  readonly #workers: number; // seconds of work done in a second
  #now = 1000;
  #died = 0;
  #work = 0; // pieces that can be done now
  begun = 0; // attempts
  inVain = 0; // of these, at dead members

  constructor(members: number, workers: number) {
    this.#workers = workers;
    for (let i = 0; i < members; i++) {
      const id = encode64(new Uint8Array(16).map(() => this.#chance() * 256));
      this.#metas.set(id, { replica: i % 16 === 1, reader: i % 8 === 7, name: "" });
    }
    for (const [peer, meta] of this.#metas) {
      const listed = new Map(this.#metas);
      listed.delete(peer);
      const near = new Neighbours({ peer, meta }, defaultTiming, listed);
      near.choose();
      this.near.set(peer, near);
    }
  }

  // How many links the graph has.
  get size(): number {
    return [...this.near.values()].reduce((sum, { graph }) => sum + graph.size, 0) / 2;
  }

  // Ends members without a word.
  kill(n: number): void {
    this.#died = this.#now;
    for (const peer of [...this.near.keys()].slice(0, n)) this.near.delete(peer);
  }

  #at(self: PeerID, peer: PeerID): LinkNow {
    const pair = [self, peer].sort().join();
    const lives = this.near.has(peer);
    const open = this.#links.has(pair) && (lives || this.#now - this.#died < dead);
    const writer = !this.#metas.get(peer)?.reader;
    const coming = !open && (this.#tries.get(pair) ?? 0) >= answered;
    return { open, heard: lives ? this.#now : this.#died, live: open, writer, coming };
  }

  // Lets the attempts go on, and everybody look at its neighbours.
  step(): void {
    this.#now += step;
    const wanted = new Set<string>();
    for (const [self, { wanted: by }] of this.near) {
      for (const peer of by) wanted.add([self, peer].sort().join());
    }
    for (const pair of [...this.#tries.keys()]) if (!wanted.has(pair)) this.#tries.delete(pair);
    const busy: string[] = [];
    for (const pair of wanted) {
      const live = pair.split(",").every((peer) => this.near.has(peer));
      if (live && this.#links.has(pair)) continue;
      if (!this.#tries.has(pair)) {
        this.#tries.set(pair, 0);
        this.begun++;
        if (!live) this.inVain++;
      }
      if (live) busy.push(pair);
    }
    // Each link takes its own time, and the machine takes up as many as it can.
    this.#work += (this.#workers * step) / piece;
    for (; this.#work >= 1 && busy.length > 0; this.#work--) {
      const [pair = ""] = busy.splice(this.#chance() * busy.length, 1);
      const work = (this.#tries.get(pair) ?? 0) + piece;
      this.#tries.set(pair, work);
      if (work < opened) continue;
      this.#links.add(pair);
      this.#tries.delete(pair);
    }
    this.#work = Math.min(this.#work, 1);
    for (const [self, near] of this.near) {
      if (near.look(this.#now, false, (peer) => this.#at(self, peer))) near.choose();
    }
  }

  // Whether everybody is linked with all that it wants, or others take their place.
  get whole(): boolean {
    return [...this.near].every(([self, near]) =>
      near.complete((peer) => ({
        ...this.#at(self, peer),
        live: this.near.has(peer) && this.#at(self, peer).open,
      })),
    );
  }

  // Lets time pass until the room is whole, and returns how long that took.
  settle(limit: number): number {
    const began = this.#now;
    do this.step();
    while (!this.whole && this.#now - began < limit);
    expect(this.whole).toBe(true);
    return this.#now - began;
  }
}

test("where 30 of 100 die and nobody tells, their places are filled soon, and the dead not tried again and again", () => {
  const room = new Room(64, 1000);
  room.settle(60_000);
  room.kill(19);
  expect(room.settle(600_000)).toBeLessThanOrEqual(3 * repair);
  const { inVain } = room;
  expect(inVain).toBeGreaterThan(0);
  for (let left = forget + 30_000; left > 0; left -= step) {
    room.step();
    expect(room.whole).toBe(true);
  }
  expect(room.inVain).toBe(inVain);
});

test("on a machine that is too slow for all links in time, not so many others are asked that it becomes slower still", () => {
  for (const workers of [4, 1]) {
    const room = new Room(64, workers);
    const { size } = room;
    const least = (size * opened) / workers;
    expect(room.settle(3600_000)).toBeLessThanOrEqual(2 * least);
    expect(room.begun).toBeLessThanOrEqual(4 * size);
  }
});
