// The mesh's choice of members, with a server and connections that are none.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fromHex, toHex } from "../changeset/change.ts";
import { BrowserLinks, graph } from "../signaling/graph.ts";
import { newPeerID, type PeerID } from "../signaling/id.ts";
import { type Keys, newRoom, parseLink, readLink } from "../signaling/link.ts";
import type { Member } from "../signaling/messages.ts";
import { openDescription, sealDescription } from "../signaling/seal.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { FrameLast } from "../syncproto/frame.ts";
import { MaxMessage, type Message, TypeBye, TypeHello, TypeNeed } from "../syncproto/message.ts";
import { emptyVector } from "../syncproto/vector.ts";
import type { MeshCore } from "./link.ts";
import { Neighbours } from "./neighbours.ts";
import { Mesh } from "./node.ts";
import { defaultTiming, type Timing } from "./timing.ts";

class FakeSocket {
  static last: FakeSocket;
  readyState = 1;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: { type: string; to?: PeerID; sealed?: string; meta?: object }[] = [];

  constructor() {
    FakeSocket.last = this;
  }

  send(frame: string): void {
    this.sent.push(JSON.parse(frame));
  }

  close(): void {
    this.readyState = 3;
  }

  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

class FakeChannel {
  readyState = "connecting";
  bufferedAmount = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  readonly sent: Message[] = []; // each in one frame

  send(frame: Uint8Array<ArrayBuffer>): void {
    if (frame[0] === FrameLast) this.sent.push(parse(frame.slice(1)));
  }

  open(): void {
    this.readyState = "open";
    this.onopen?.();
  }

  say(m: Message): void {
    this.onmessage?.({ data: new Uint8Array([FrameLast, ...marshal(m)]).buffer });
  }

  close(): void {}
}

class FakeConnection {
  static made = 0;
  static described: FakeChannel; // of the last one that was told of the other side
  readonly #channel = new FakeChannel();
  iceGatheringState = "complete";
  iceConnectionState = "new";
  connectionState = "new";
  signalingState = "stable";
  localDescription: { sdp: string } | null = null;

  constructor() {
    FakeConnection.made++;
  }

  createDataChannel() {
    return this.#channel;
  }

  async setLocalDescription(): Promise<void> {
    this.localDescription = { sdp: `a=fingerprint:sha-256 ${Array(32).fill("AA").join(":")}\r\n` };
  }

  async setRemoteDescription(): Promise<void> {
    FakeConnection.described = this.#channel;
  }

  close(): void {}
}

/** The greatest id: its side offers. */
const greatest = `${"_".repeat(21)}w`;

let keys: Keys;
let own: PeerID;
let mesh: Mesh | undefined;

beforeEach(async () => {
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("RTCPeerConnection", FakeConnection);
  vi.stubGlobal("navigator", {});
  vi.stubGlobal("addEventListener", () => {});
  vi.stubGlobal("removeEventListener", () => {});
  vi.stubGlobal("document", { addEventListener() {}, removeEventListener() {}, visibilityState: "visible" });
  FakeConnection.made = 0;
  keys = await newRoom();
  own = newPeerID();
});

afterEach(() => {
  mesh?.close();
  mesh = undefined;
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

// Joins a room with `others`.
function join(others: readonly Member[], timing: Partial<Timing> = {}, core: Partial<MeshCore> = {}): Mesh {
  mesh = new Mesh({
    keys,
    site: "00112233445566778899aabbccddeeff",
    peer: own,
    name: "me",
    urls: ["ws://server.example"],
    core: { open() {}, message() {}, refuse() {}, closed() {}, ...core },
    changed() {},
    timing: { ...defaultTiming, want: 20, beat: 10, ...timing },
  });
  mesh.start();
  const socket = FakeSocket.last;
  socket.onopen?.();
  const joined = { peer: own, token: "t", members: others, iceServers: [], ttl: 0, resumed: false };
  socket.say({ type: "joined", ...joined });
  return mesh;
}

const writers = (n: number): Member[] =>
  Array.from({ length: n }, () => ({
    peer: newPeerID(),
    meta: { replica: false, reader: false, name: "" },
  }));

const addressed = () => new Set(FakeSocket.last.sent.flatMap((m) => (m.to ? [m.to] : [])));
const self = (): Member => ({ peer: own, meta: { replica: false, reader: !keys.writer, name: "me" } });
const stages = (m: Mesh, stage: string) => m.members().filter((x) => x.stage === stage).length;

test("of 511 others, those of the graph are addressed, and no more connections are made", async () => {
  const others = writers(511);
  const wanted = graph([self(), ...others], own);
  const m = join(others);
  await expect.poll(() => [...addressed()].sort()).toEqual([...wanted].sort());
  expect(wanted.length).toBeLessThanOrEqual(BrowserLinks);
  expect(FakeConnection.made).toBeLessThanOrEqual(wanted.length);
  expect(m.members().length).toBe(511);
  expect(stages(m, "unlinked")).toBe(511 - wanted.length);
});

test("a member that is no neighbour gets a link when it asks, and is let go of when nothing comes of it", async () => {
  own = greatest;
  const others = writers(40);
  const wanted = new Set(graph([self(), ...others], own));
  const stranger = others.find((o) => !wanted.has(o.peer))?.peer ?? "";
  const m = join(others);
  await expect.poll(() => FakeConnection.made).toBe(wanted.size);
  const tell = async (session: number) =>
    FakeSocket.last.say({
      type: "signal",
      from: stranger,
      sealed: await sealDescription(keys, stranger, own, { kind: "want", session }),
    });
  await tell(1);
  await expect.poll(() => addressed().has(stranger)).toBe(true);
  const answer = FakeSocket.last.sent.find((x) => x.to === stranger);
  expect(await openDescription(keys, own, stranger, answer?.sealed ?? "")).toMatchObject({ kind: "offer" });
  expect(FakeConnection.made).toBe(wanted.size + 1);
  // It says bye, and is as it was before.
  const offer = await openDescription(keys, own, stranger, answer?.sealed ?? "");
  FakeSocket.last.say({
    type: "signal",
    from: stranger,
    sealed: await sealDescription(keys, stranger, own, { kind: "bye", session: offer.session }),
  });
  await expect.poll(() => m.members().find((x) => x.peer === stranger)?.stage).toBe("unlinked");
  expect(stages(m, "unlinked")).toBe(40 - wanted.size);
});

test("who is to take the place of another is asked at once, though the other side is the one that offers", async () => {
  own = "A".repeat(22); // the least id
  const others = writers(40);
  const neighbours = graph([self(), ...others], own);
  join(others, { want: 3600_000, repair: 20 });
  await expect.poll(() => addressed().size).toBeGreaterThan(0);
  expect([...addressed()].filter((peer) => neighbours.includes(peer))).toEqual([]);
});

test("a link that the other side asked for is kept while that needs it, and closed once it does not", async () => {
  own = greatest;
  const others = writers(40);
  const wanted = new Set(graph([self(), ...others], own));
  const stranger = others.find((o) => !wanted.has(o.peer))?.peer ?? "";
  const hello: Message = {
    type: TypeHello,
    site: "ffeeddccbbaa99887766554433221100",
    writer: false,
    feed: false,
    busy: false,
    proof: new Uint8Array(),
    schemaHash: new Uint8Array(32),
    maxMessage: MaxMessage,
    resume: 0,
    neighbours: [],
    vector: emptyVector,
  };
  vi.spyOn(Neighbours.prototype, "complete").mockReturnValue(true); // nobody else answers here
  const m = join(others, { surplus: 100 }, { open: (link) => m.send(link, marshal(hello)) });
  await expect.poll(() => FakeConnection.made).toBeGreaterThanOrEqual(wanted.size);
  FakeSocket.last.say({
    type: "signal",
    from: stranger,
    sealed: await sealDescription(keys, stranger, own, {
      kind: "offer",
      session: 1,
      sdp: `a=fingerprint:sha-256 ${Array(32).fill("BB").join(":")}\r\n`,
      nonce: new Uint8Array(32),
      site: fromHex(hello.site),
    }),
  });
  const answered = async () => {
    const kinds = [];
    for (const x of FakeSocket.last.sent) {
      if (x.to === stranger) kinds.push((await openDescription(keys, own, stranger, x.sealed ?? "")).kind);
    }
    return kinds;
  };
  await expect.poll(answered).toContain("answer");
  const channel = FakeConnection.described;
  channel.open();
  channel.say(hello);
  const needs = () => channel.sent.flatMap((x) => (x.type === TypeNeed ? [x.needed] : []));
  await expect.poll(needs).toEqual([false]);
  expect(channel.sent.some((x) => x.type === TypeBye)).toBe(false);
  channel.say({ type: TypeNeed, needed: false });
  await expect.poll(() => channel.sent.some((x) => x.type === TypeBye)).toBe(true);
  expect(needs()).toEqual([false]);
});

test("a neighbour that is none any more is told so, and forgotten", async () => {
  const others = writers(13);
  own = greatest;
  const m = join(others);
  await expect.poll(() => FakeConnection.made).toBeGreaterThan(0);
  const before = new Set(graph([self(), ...others], own));
  const all = [...others];
  // More members come until one of the neighbours is none.
  let lost: PeerID | undefined;
  while (!lost) {
    const [more] = writers(1);
    if (!more) break;
    all.push(more);
    FakeSocket.last.say({ type: "member-joined", ...more });
    const after = new Set(graph([self(), ...all], own));
    lost = [...before].find((peer) => !after.has(peer));
  }
  const byes = async () => {
    const kinds: string[] = [];
    for (const x of FakeSocket.last.sent) {
      if (x.to === lost) kinds.push((await openDescription(keys, own, x.to ?? "", x.sealed ?? "")).kind);
    }
    return kinds.at(-1);
  };
  await expect.poll(byes).toBe("bye");
  await expect.poll(() => m.members().find((x) => x.peer === lost)?.stage).toBe("unlinked");
});

test("under another site all attempts are given up, and begun anew at once under it", async () => {
  own = greatest;
  const others = writers(3);
  const m = join(others);
  const said = async (peer: PeerID) => {
    const kinds: string[] = [];
    for (const x of FakeSocket.last.sent) {
      if (x.to !== peer) continue;
      const d = await openDescription(keys, own, peer, x.sealed ?? "");
      kinds.push(d.kind === "offer" ? `offer of ${toHex(d.site).slice(0, 4)}` : d.kind);
    }
    return kinds;
  };
  const all = () => Promise.all(others.map(({ peer }) => said(peer)));
  await expect.poll(all).toEqual(others.map(() => ["offer of 0011"]));
  m.rename("ff".repeat(16));
  await expect.poll(all).toEqual(others.map(() => ["offer of 0011", "bye", "offer of ffff"]));
  m.rename("ff".repeat(16)); // also where the database keeps its site
  await expect
    .poll(async () => (await all()).map((kinds) => kinds.slice(3)))
    .toEqual(others.map(() => ["bye", "offer of ffff"]));
  expect(m.members().map((x) => x.refused)).toEqual(others.map(() => undefined));
});

test("a reader says so, hangs on three writers and takes no link with a reader", async () => {
  keys = (await parseLink(readLink(keys, "https://a.example/"))).keys;
  const others = writers(20);
  const readers = writers(20).map((o) => ({ ...o, meta: { ...o.meta, reader: true } }));
  const m = join([...others, ...readers]);
  expect(FakeSocket.last.sent[0]?.meta).toEqual({ replica: false, reader: true, name: "me" });
  await expect.poll(() => addressed().size).toBe(3);
  const reader = readers[0]?.peer ?? "";
  FakeSocket.last.say({
    type: "signal",
    from: reader,
    sealed: await sealDescription(keys, reader, own, { kind: "want", session: 1 }),
  });
  const writer = others.find((o) => !addressed().has(o.peer))?.peer ?? "";
  const nonce = new Uint8Array(32);
  const sdp = `a=fingerprint:sha-256 ${Array(32).fill("BB").join(":")}\r\n`;
  FakeSocket.last.say({
    type: "signal",
    from: writer,
    sealed: await sealDescription(keys, writer, own, {
      kind: "offer",
      session: 1,
      sdp,
      nonce,
      site: fromHex("ffeeddccbbaa99887766554433221100"),
    }),
  });
  // The writer's comes later and is answered: the reader's was looked at before.
  await expect.poll(() => m.members().find((x) => x.peer === writer)?.stage).not.toBe("unlinked");
  expect(addressed().has(reader)).toBe(false);
  expect(m.members().find((x) => x.peer === reader)?.stage).toBe("unlinked");
});
