// Who is linked with whom in a room: docs/SIGNALING.md, "The graph of a room".

import { compareBytes } from "../changeset/value.ts";
import { idBytes, type PeerID } from "./id.ts";
import type { Member } from "./messages.ts";

/** The greatest number of members, oneself included, that are all linked with each other. */
export const FullMeshMembers = 12;
/** How many writers each writer picks besides its neighbours on the ring, and besides one replica. */
export const Picks = 3;
/** How many writers a reader hangs on. */
export const ReaderLinks = 3;
/** How many links a writer has at most that is no replica, and a replica. */
export const BrowserLinks = 12;
export const ReplicaLinks = 64;
/** How many links of a replica are with writers at most, so that readers find room. */
export const ReplicaWriters = 32;

/** Makes the weight of a pair another one than that of the pair turned round: 2^32 by the golden ratio, odd. */
const pairFactor = 0x9e3779b1;

interface Node {
  readonly peer: PeerID;
  readonly bytes: Uint8Array;
  readonly hash: number;
  readonly replica: boolean;
  readonly reader: boolean;
  /** Places in the list of nodes. */
  readonly links: number[];
}

/** An edge that its first end asks for. */
interface Pick {
  readonly weight: number;
  readonly from: number;
  readonly to: number;
}

/**
 * The members of a room that `self` is to be linked with, in no particular order. Each id stands in the list once, `self` is
 * among them, and the order of the list does not matter. The result is symmetric. It takes some ms for a room of 512.
 */
export function graph(members: readonly Member[], self: PeerID): PeerID[] {
  const nodes = build(members);
  const own = nodes.find((n) => n.peer === self);
  return (own?.links ?? []).map((i) => at(nodes, i).peer);
}

function build(members: readonly Member[]): Node[] {
  const nodes = members.map(({ peer, meta }): Node => {
    const bytes = idBytes(peer);
    return { peer, bytes, hash: hashPeer(bytes), replica: meta.replica, reader: meta.reader, links: [] };
  });
  nodes.sort((a, b) => a.hash - b.hash || compareBytes(a.bytes, b.bytes));
  if (nodes.length <= FullMeshMembers) {
    for (let i = 0; i < nodes.length; i++) {
      for (let j = 0; j < i; j++) {
        if (!at(nodes, i).reader || !at(nodes, j).reader) link(nodes, i, j);
      }
    }
    return nodes;
  }
  const places = nodes.map((_, i) => i);
  const writers = places.filter((i) => !at(nodes, i).reader);
  const readers = places.filter((i) => at(nodes, i).reader);
  ring(nodes, writers);
  pick(nodes, writers);
  for (let round = 0; round < ReaderLinks; round++) {
    for (const r of readers) hang(nodes, r, writers);
  }
  return nodes;
}

// Links each writer with the next one.
function ring(nodes: Node[], writers: number[]): void {
  writers.forEach((w, i) => {
    const next = at(writers, (i + 1) % writers.length);
    if (next !== w && !linked(nodes, w, next)) link(nodes, w, next);
  });
}

// Lets each writer pick a replica, and others of any kind. Where more pick a writer than it takes, those with the least
// weight do.
function pick(nodes: Node[], writers: number[]): void {
  const first: Pick[] = [];
  const rest: Pick[] = [];
  for (const w of writers) {
    const weights = weigh(nodes, w, writers);
    const taken = [w];
    const replica = best(w, writers, weights, (to) => to !== w && at(nodes, to).replica);
    if (replica) {
      first.push(replica);
      taken.push(replica.to);
    }
    for (let i = 0; i < Picks; i++) {
      const p = best(w, writers, weights, (to) => !taken.includes(to));
      if (!p) break;
      rest.push(p);
      taken.push(p.to);
    }
  }
  const byWeight = (a: Pick, b: Pick) => a.weight - b.weight || a.from - b.from || a.to - b.to;
  const takes = (i: number) => {
    const n = at(nodes, i);
    return n.links.length < (n.replica ? ReplicaWriters : BrowserLinks);
  };
  for (const p of [...first.sort(byWeight), ...rest.sort(byWeight)]) {
    if (!linked(nodes, p.from, p.to) && takes(p.from) && takes(p.to)) link(nodes, p.from, p.to);
  }
}

// Gives a reader one more writer: a replica that has room, or another writer that has. A reader that would have none at all
// takes one that has none, replicas before others: better too many links than nothing.
function hang(nodes: Node[], reader: number, writers: number[]): void {
  const weights = weigh(nodes, reader, writers);
  const free = (replica: boolean, most: number) => (to: number) => {
    const n = at(nodes, to);
    return n.replica === replica && n.links.length < most && !linked(nodes, reader, to);
  };
  let p =
    best(reader, writers, weights, free(true, ReplicaLinks)) ??
    best(reader, writers, weights, free(false, BrowserLinks));
  if (!p && at(nodes, reader).links.length === 0) {
    p =
      best(reader, writers, weights, (to) => at(nodes, to).replica) ??
      best(reader, writers, weights, () => true);
  }
  if (p) link(nodes, reader, p.to);
}

// The pick of least weight among those that fit. There is a weight for each writer.
function best(
  from: number,
  writers: number[],
  weights: Uint32Array,
  fits: (to: number) => boolean,
): Pick | undefined {
  let least = 2 ** 32;
  let found = -1;
  for (let i = 0; i < writers.length; i++) {
    const weight = weights[i] as number;
    if (weight < least && fits(at(writers, i))) {
      least = weight;
      found = at(writers, i);
    }
  }
  return found < 0 ? undefined : { weight: least, from, to: found };
}

// How far each of the writers is from a member, by chance.
function weigh(nodes: Node[], from: number, writers: number[]): Uint32Array {
  const own = Math.imul(at(nodes, from).hash, pairFactor);
  const out = new Uint32Array(writers.length);
  for (let i = 0; i < writers.length; i++) out[i] = mix(own + at(nodes, at(writers, i)).hash);
  return out;
}

function link(nodes: Node[], i: number, j: number): void {
  at(nodes, i).links.push(j);
  at(nodes, j).links.push(i);
}

function linked(nodes: Node[], i: number, j: number): boolean {
  return at(nodes, i).links.includes(j);
}

function at<T>(list: readonly T[], i: number): T {
  return list[i] as T;
}

// FNV-1a, 32 bits, mixed.
function hashPeer(bytes: Uint8Array): number {
  let h = 0x811c9dc5;
  for (const b of bytes) h = Math.imul(h ^ b, 0x01000193);
  return mix(h);
}

// The last step of MurmurHash3, 32 bits: each bit in changes each bit out half of the time.
function mix(x: number): number {
  let h = x | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
