// The negotiation with connections that are none: what each side says when the other has given an attempt up.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Description } from "../signaling/description.ts";
import { newPeerID, type PeerID } from "../signaling/id.ts";
import { Negotiation } from "./negotiate.ts";
import { defaultTiming } from "./timing.ts";

class FakeConnection {
  iceGatheringState = "complete";
  iceConnectionState = "new";
  connectionState = "new";
  signalingState = "stable";
  localDescription: { sdp: string } | null = null;
  /** While set, a description is worked on until the connection is closed, and then never settles, as in browsers. */
  static slow = false;
  /** While set, there are too many connections already. */
  static full = false;

  constructor() {
    if (FakeConnection.full) throw new Error("Cannot create so many PeerConnections");
  }

  createDataChannel() {
    return { readyState: "connecting", bufferedAmount: 0, close() {}, send() {} };
  }

  async createOffer() {
    return { sdp };
  }

  setConfiguration(): void {}

  async setLocalDescription(): Promise<void> {
    if (FakeConnection.slow) await new Promise(() => {});
    this.localDescription = { sdp };
  }

  async setRemoteDescription(): Promise<void> {
    if (FakeConnection.slow) await new Promise(() => {});
  }

  close(): void {}
}

const sdp = `a=fingerprint:sha-256 ${Array(32).fill("AA").join(":")}\r\n`;
const greatest: PeerID = `${"_".repeat(21)}w`;
const description = { sdp, nonce: new Uint8Array(32), site: new Uint8Array(16) };

beforeEach(() => {
  vi.stubGlobal("RTCPeerConnection", FakeConnection);
});

let negotiation: Negotiation | undefined;

afterEach(() => {
  FakeConnection.slow = false;
  FakeConnection.full = false;
  negotiation?.close();
  vi.unstubAllGlobals();
});

// Starts one whose attempts take `attempt` ms at most, and which tries none again by itself.
function start(own: PeerID, peer: PeerID, attempt: number, want: number) {
  const said: Description[] = [];
  const never = 3_600_000;
  const n = new Negotiation({
    own,
    peer,
    site: () => "00".repeat(16),
    timing: { ...defaultTiming, attempt, want, minBackoff: never, maxBackoff: never },
    configuration: () => ({}),
    send: (d) => said.push(d),
    reachable: () => true,
    events: { open() {}, message() {}, fault() {}, closed() {}, changed() {} },
  });
  negotiation = n;
  n.start();
  const last = (kind: Description["kind"]) => said.filter((d) => d.kind === kind).at(-1)?.session ?? 0;
  const count = (kind: Description["kind"]) => said.filter((d) => d.kind === kind).length;
  return { n, last, count };
}

// Lets the attempt that is under way come to its end.
async function giveUp(n: Negotiation): Promise<void> {
  await expect
    .poll(() => {
      n.beat();
      return n.conn;
    })
    .toBeUndefined();
}

test("asked for an offer: the one that there is again, and another one only for who has answered that and lost what came of it", async () => {
  const { n, last, count } = start(greatest, newPeerID(), 3_600_000, 3_600_000);
  await expect.poll(() => count("offer")).toBe(1);
  const session = last("offer");
  n.receive({ kind: "want", session: session + 5 }); // the offer may be lost
  await expect.poll(() => count("offer")).toBe(2);
  expect(last("offer")).toBe(session);
  n.receive({ kind: "answer", session, ...description });
  n.receive({ kind: "want", session: session - 5 });
  await expect.poll(() => n.conn?.remote).toBeDefined();
  expect(count("offer")).toBe(2);
  n.receive({ kind: "want", session: session + 5 });
  await expect.poll(() => count("offer")).toBe(3);
  expect(last("offer")).toBeGreaterThan(session + 5);
});

test("a first offer that crosses ours: the impolite side repeats its own, which may be lost", async () => {
  const { n, last, count } = start(greatest, newPeerID(), 3_600_000, 3_600_000);
  await expect.poll(() => count("offer")).toBe(1);
  const session = last("offer");
  n.receive({ kind: "offer", session: session + 5, ...description });
  await expect.poll(() => count("offer")).toBe(2);
  expect(last("offer")).toBe(session);
  expect(count("answer")).toBe(0);
});

test("a restart that crosses ours: the impolite side repeats its own, which may be lost", async () => {
  const { n, last, count } = start(greatest, newPeerID(), 3_600_000, 3_600_000);
  await expect.poll(() => count("offer")).toBe(1);
  const session = last("offer");
  n.receive({ kind: "answer", session, ...description });
  await expect.poll(() => n.conn?.remote).toBeDefined();
  n.wake(true); // another network
  await expect.poll(() => count("offer")).toBe(2);
  n.receive({ kind: "offer", session, ...description });
  await expect.poll(() => count("offer")).toBe(3);
  expect(last("offer")).toBe(session);
  expect(count("answer")).toBe(0);
});

test("a restart of an attempt that is over: who offers, offers anew", async () => {
  const { n, last, count } = start(greatest, newPeerID(), 0, 3_600_000);
  await expect.poll(() => count("offer")).toBe(1);
  const session = last("offer");
  await giveUp(n);
  n.receive({ kind: "offer", session, ...description });
  await expect
    .poll(() => {
      n.beat();
      return count("offer");
    })
    .toBe(2);
  expect(last("offer")).toBeGreaterThan(session);
  expect(count("answer")).toBe(0);
});

test("a restart of an attempt that is over: who does not offer, asks", async () => {
  const { n, last, count } = start(newPeerID(), greatest, 0, 3_600_000);
  n.receive({ kind: "offer", session: 7, ...description });
  await expect.poll(() => count("answer")).toBe(1);
  await giveUp(n);
  expect(count("want")).toBe(0);
  n.receive({ kind: "offer", session: 7, ...description });
  await expect
    .poll(() => {
      n.beat();
      return count("want");
    })
    .toBe(1);
  expect(last("want")).toBeGreaterThan(7);
  // The other side repeats what it offered: to ask at once again would have no end.
  n.receive({ kind: "offer", session: 7, ...description });
  for (let i = 0; i < 20; i++) await Promise.resolve(); // which is how long it takes to take it
  n.beat();
  expect(count("want")).toBe(1);
});

test("an attempt that is given up while the browser works on its description holds up nothing that comes after it", async () => {
  const { n, last, count } = start(greatest, newPeerID(), 3_600_000, 3_600_000);
  await expect.poll(() => count("offer")).toBe(1);
  FakeConnection.slow = true;
  n.renamed();
  n.beat(); // a new attempt
  await expect.poll(() => n.conn?.offering).toBe(true);
  FakeConnection.slow = false;
  n.renamed();
  n.beat();
  await expect.poll(() => count("offer")).toBe(2);
  expect(last("offer")).toBe(n.conn?.session);

  // Likewise one of the other side's.
  const session = last("offer");
  n.receive({ kind: "answer", session, ...description });
  await expect.poll(() => n.conn?.remote).toBeDefined();
  FakeConnection.slow = true;
  n.receive({ kind: "offer", session: session + 5, ...description });
  await expect.poll(() => n.conn?.session).toBe(session + 5);
  n.receive({ kind: "bye", session: session + 5 }); // waits for its turn
  FakeConnection.slow = false;
  n.renamed();
  n.beat();
  await expect.poll(() => count("offer")).toBe(3);
  expect(n.failedAt).toBeUndefined();
});

test("an offer that replaces an attempt where the browser makes no further connection: asked for again after a while", async () => {
  const { n, count } = start(newPeerID(), greatest, 3_600_000, 20);
  n.receive({ kind: "offer", session: 7, ...description });
  await expect.poll(() => count("answer")).toBe(1);
  const before = count("want");
  FakeConnection.full = true;
  n.receive({ kind: "offer", session: 8, ...description });
  await expect.poll(() => n.conn).toBeUndefined();
  await expect
    .poll(() => {
      n.beat();
      return count("want");
    })
    .toBeGreaterThan(before);
});
