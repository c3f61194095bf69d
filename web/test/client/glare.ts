// Two negotiations in one page, and what can go wrong between them.

import type { Conn } from "../../src/mesh/conn.ts";
import { Negotiation } from "../../src/mesh/negotiate.ts";
import { defaultTiming } from "../../src/mesh/timing.ts";
import { type Description, marshalDescription, parseDescription } from "../../src/signaling/description.ts";
import { comparePeers, newPeerID } from "../../src/signaling/id.ts";

/** One side of a pair. */
class Side {
  readonly negotiation: Negotiation;
  conn: Conn | undefined;
  opened = 0;
  other: Side | undefined;
  /** Descriptions that are lost or late: what becomes of one that this side sends. */
  pass: (d: Description, deliver: () => void) => void = (_, deliver) => deliver();
  received: number[] = [];

  constructor(own: string, peer: string) {
    const site = own.charCodeAt(0).toString(16).padStart(32, "0");
    this.negotiation = new Negotiation({
      own,
      peer,
      site: () => site,
      // What is lost is repaired at once, or asked for: that a restart or an attempt takes long is no reason to begin anew.
      timing: { ...defaultTiming, want: 300, restart: 40_000, attempt: 40_000, minBackoff: 100 },
      configuration: () => ({}),
      send: (d) => {
        const bytes = marshalDescription(d);
        this.pass(d, () => queueMicrotask(() => this.other?.negotiation.receive(parseDescription(bytes))));
      },
      reachable: () => true,
      events: {
        open: (conn) => {
          this.conn = conn;
          this.opened++;
        },
        message: (_, bytes) => this.received.push(bytes[0] ?? 0),
        fault: (conn) => void this.negotiation.refuse(conn),
        closed: () => {},
        changed: () => {},
      },
    });
  }
}

function pair(): [polite: Side, impolite: Side] {
  const [a, b] = [newPeerID(), newPeerID()].sort(comparePeers) as [string, string];
  const sides: [Side, Side] = [new Side(a, b), new Side(b, a)];
  [sides[0].other, sides[1].other] = [sides[1], sides[0]];
  return sides;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`this never came about: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function talk(sides: readonly Side[], token: number): Promise<void> {
  for (const side of sides) side.negotiation.conn?.channel.send(new Uint8Array([token]));
  await until("both sides hear each other", () => sides.every((s) => s.received.includes(token)));
  for (const side of sides) side.received = [];
}

/** Runs `body` with a started pair, with the beats of a page. */
async function withPair(body: (polite: Side, impolite: Side) => Promise<void>, start = true): Promise<void> {
  const sides = pair();
  const beat = setInterval(() => {
    for (const s of sides) s.negotiation.beat();
  }, 20);
  try {
    if (start) for (const s of sides) s.negotiation.start();
    await body(...sides);
  } finally {
    clearInterval(beat);
    for (const s of sides) s.negotiation.close();
  }
}

const isOpen = (s: Side) => s.negotiation.conn?.channel.isOpen === true;

// ICE tells both sides at once that the path is gone, so that both offer a restart.
function collide(sides: readonly Side[]): void {
  for (const { negotiation } of sides) {
    const pc = negotiation.conn?.pc;
    if (!pc) continue;
    Object.defineProperty(pc, "iceConnectionState", { value: "failed", configurable: true });
    pc.oniceconnectionstatechange?.(new Event("iceconnectionstatechange"));
    Reflect.deleteProperty(pc, "iceConnectionState");
  }
}

/** Restarts that cross, `rounds` times on one link. Returns how many connections it took. */
export async function crossingRestarts(rounds: number): Promise<number> {
  let connections = 0;
  await withPair(async (polite, impolite) => {
    const sides = [polite, impolite];
    await until("the link opens", () => sides.every(isOpen));
    for (let i = 1; i <= rounds; i++) {
      collide(sides);
      await talk(sides, 1 + (i % 200));
      await until("both are at rest", () =>
        sides.every(({ negotiation: { conn } }) => {
          return (
            conn !== undefined &&
            !conn.offering &&
            conn.pc.signalingState === "stable" &&
            conn.restartedAt === 0
          );
        }),
      );
    }
    connections = Math.max(polite.opened, impolite.opened);
  });
  return connections;
}

/** Of restarts that cross, the one that is to be answered is lost. Returns how many connections it took. */
export async function lostRestart(): Promise<number> {
  let connections = 0;
  await withPair(async (polite, impolite) => {
    const sides = [polite, impolite];
    await until("the link opens", () => sides.every(isOpen));
    let lost = 0;
    impolite.pass = (d, deliver) => {
      if (d.kind === "offer" && lost++ === 0) return;
      deliver();
    };
    collide(sides);
    await until("an offer is lost", () => lost > 0);
    await talk(sides, 11);
    connections = Math.max(polite.opened, impolite.opened);
  });
  return connections;
}

/** Candidates that come before the description of their session. */
export async function candidatesBeforeDescription(): Promise<void> {
  await withPair(async (polite, impolite) => {
    // Candidates overtake the descriptions that they belong to.
    for (const side of [polite, impolite]) {
      side.pass = (d, deliver) => {
        if (d.kind === "candidate") deliver();
        else setTimeout(deliver, 300);
      };
    }
    for (const s of [polite, impolite]) s.negotiation.start();
    await until("the link opens", () => isOpen(polite) && isOpen(impolite));
    await talk([polite, impolite], 7);
  }, false);
}

/** The first offer is lost: the polite side asks for one, and attempts are repeated. */
export async function lostOffer(): Promise<void> {
  await withPair(async (polite, impolite) => {
    let lost = 0;
    impolite.pass = (d, deliver) => {
      if (d.kind === "offer" && lost++ === 0) return;
      deliver();
    };
    for (const s of [polite, impolite]) s.negotiation.start();
    await until("the link opens", () => isOpen(polite) && isOpen(impolite));
    await talk([polite, impolite], 9);
  }, false);
}
