import { beforeEach, expect, test } from "vitest";
import { encode64 } from "../signaling/base64.ts";
import { BrowserLinks } from "../signaling/graph.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Meta } from "../signaling/messages.ts";
import { type LinkNow, Neighbours } from "./neighbours.ts";
import { defaultTiming } from "./timing.ts";

const { repair, surplus, forget } = defaultTiming;
const writer: Meta = { replica: false, reader: false, name: "" };

let listed: Map<PeerID, Meta>;
let links: Map<PeerID, LinkNow>;
let near: Neighbours;
let now: number;
const doubted = new Set<PeerID>();

function id(n: number): PeerID {
  return encode64(new Uint8Array(16).map((_, i) => (n * 31 + i * 101 + n * i) % 256));
}

beforeEach(() => {
  doubted.clear();
  listed = new Map(Array.from({ length: 100 }, (_, i) => [id(i), writer]));
  links = new Map();
  now = 1000;
  near = new Neighbours({ peer: id(100), meta: writer }, defaultTiming, listed);
  near.choose();
});

const at = (peer: PeerID) => links.get(peer);

function open(...but: PeerID[]): void {
  for (const peer of near.wanted) {
    if (but.includes(peer)) continue;
    links.set(peer, { open: true, heard: now, live: true, writer: true, coming: false });
  }
}

// Lets time pass in steps of a second, in which open links are heard.
function pass(ms: number, alone = false): void {
  for (let left = ms; left > 0; left -= 1000) {
    now += 1000;
    for (const [peer, k] of links) if (k.open) links.set(peer, { ...k, heard: now });
    if (near.look(now, alone, at)) near.choose();
  }
}

const instead = () => [...near.wanted].filter((peer) => !near.graph.has(peer));

// A neighbour without whom another one takes its place.
function replaceable(): PeerID {
  for (const peer of near.graph) {
    const rest = new Map(listed);
    rest.delete(peer);
    const other = new Neighbours({ peer: id(100), meta: writer }, defaultTiming, rest);
    other.choose();
    if ([...other.graph].some((p) => !near.graph.has(p))) return peer;
  }
  throw new Error("nobody would take the place of anybody");
}

test("of many members about eight are wanted", () => {
  expect(near.wanted.size).toBeGreaterThan(4);
  expect(near.wanted.size).toBeLessThanOrEqual(BrowserLinks);
});

test("another takes the place of a neighbour that does not answer, until it does", () => {
  const lost = replaceable();
  const graph = near.graph;
  open(lost);
  pass(repair - 1000);
  expect(instead()).toEqual([]);
  pass(3000, true); // nobody can be reached at all
  expect(instead()).toEqual([]);
  links.set(lost, { open: false, heard: 0, live: false, writer: false, coming: true });
  pass(60_000); // its first attempt goes on
  expect(instead()).toEqual([]);
  links.delete(lost);
  pass(1000);
  expect(instead()).not.toEqual([]);
  expect(near.wanted.has(lost)).toBe(true);
  expect(near.complete(at)).toBe(false);
  open(lost);
  expect(near.complete(at)).toBe(true);
  open();
  pass(1000);
  expect(near.wanted).toEqual(graph);
});

test("where nobody answers, those in the place of others are given up more and more slowly, and few asked at a time", () => {
  const sets: number[] = [];
  let last = "";
  for (let second = 1; second <= 140; second++) {
    pass(1000);
    const shown = instead().sort().join();
    if (shown !== last) sets.push(second);
    last = shown;
    expect(instead().length).toBeLessThanOrEqual(4);
  }
  expect(sets).toEqual([11, 22, 33, 53, 93, 133]);
});

// Somebody in the place of another for whom nobody else is asked yet.
function undoubted(): PeerID {
  const peer = instead().find((p) => !doubted.has(p));
  if (peer === undefined) throw new Error("nobody is to take the place of anybody");
  doubted.add(peer);
  return peer;
}

test("where most answer, others are asked soon in the place of one that does not, and it is tried on", () => {
  open(replaceable());
  pass(repair + 1000);
  const [gone, asked] = [undoubted(), instead().length];
  pass(3000); // it is seen not to answer after the first of them
  expect(instead()).toHaveLength(asked);
  pass(1000);
  expect(instead().length).toBeGreaterThan(asked);
  expect(near.wanted).toContain(gone);
  const slow = undoubted();
  pass(4000);
  expect(near.complete(at)).toBe(false); // the next one is asked
  expect(near.wanted).toContain(gone);
  links.set(slow, { open: false, heard: 0, live: false, writer: false, coming: true });
  pass(1000);
  expect(instead().sort()).toEqual([gone, slow].sort()); // it answers after all: the one after it is not needed
  pass(2000);
  expect(instead()).toEqual([slow]);
  links.set(slow, { open: true, heard: now, live: true, writer: true, coming: false });
  pass(1000);
  expect(near.complete(at)).toBe(true);
});

test("who failed in the place of another is tried again after a while, which is long where there are enough links", () => {
  const lost = replaceable();
  open(lost);
  pass(repair + 1000);
  const failed = undoubted();
  pass(repair + 1000);
  expect(near.wanted).not.toContain(failed);
  open(lost);
  pass(forget * 15);
  expect(near.wanted).not.toContain(failed);
  pass(forget);
  expect(near.wanted).toContain(failed);
  pass(repair + 1000);
  expect(near.wanted).not.toContain(failed);
  links.set(failed, { open: true, heard: now, live: true, writer: true, coming: false }); // it has asked for a link
  pass(1000);
  expect(near.wanted).toContain(failed);
});

test("where few answer, who failed is tried again sooner", () => {
  pass(repair + 1000);
  const failed = undoubted();
  pass(repair + 2000);
  expect(near.wanted).not.toContain(failed);
  pass(forget - 3000);
  expect(near.wanted).not.toContain(failed);
  pass(4000);
  expect(near.wanted).toContain(failed);
});

test("a neighbour that is listed as a writer and shows a reader needs another in its place", () => {
  const liar = replaceable();
  open();
  links.set(liar, { open: true, heard: now, live: true, writer: false, coming: false });
  pass(1000);
  expect(instead()).not.toEqual([]);
});

test("a link that nobody wants is closed after a while, once the wanted ones are there", () => {
  const peer = [...listed.keys()].find((p) => !near.wanted.has(p)) ?? "";
  expect(near.surplus(now, peer, true)).toBe(false);
  expect(near.surplus(now + surplus - 1, peer, true)).toBe(false);
  expect(near.surplus(now + surplus, peer, false)).toBe(false);
  expect(near.surplus(now + surplus, peer, true)).toBe(true);
  near.unlinked(peer);
  expect(near.surplus(now + surplus, peer, true)).toBe(false);
});

test("two readers are not linked", () => {
  const reader = { ...writer, reader: true };
  const few = new Map([
    [id(1), reader],
    [id(2), writer],
  ]);
  const n = new Neighbours({ peer: id(100), meta: reader }, defaultTiming, few);
  n.choose();
  expect([...n.wanted]).toEqual([id(2)]);
  expect(n.mayLink(reader)).toBe(false);
  expect(n.mayLink(writer)).toBe(true);
});
