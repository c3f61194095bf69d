// How descriptions get to one member and come from it: sealed, over the signaling server, or over other members.

import type { SignalClient } from "../signaling/client.ts";
import type { Description } from "../signaling/description.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Keys } from "../signaling/link.ts";
import { openDescription, sealDescription } from "../signaling/seal.ts";
import type { Relays } from "./relay.ts";
import type { Timing } from "./timing.ts";

/** Envelopes that may wait to be opened. A member that sends more is not in its right mind. */
const maxWaiting = 256;

/** What the way to a member is made of. */
export interface ReachOptions {
  readonly keys: Keys;
  readonly own: PeerID;
  readonly peer: PeerID;
  readonly signal: Pick<SignalClient, "state" | "signal">;
  readonly relays: Relays;
  readonly timing: Timing;
  /** A description from the member. */
  receive(d: Description): void;
  /** There is another way than before, and what was sent may be lost. Never from within a call. */
  another(): void;
}

/** The way to one member. */
export class Reach {
  readonly #o: ReachOptions;
  #unknownUntil = Number.NEGATIVE_INFINITY; // until when the server counts as not knowing the member, ms
  // Envelopes are opened and sealed one after the other, so that they keep their order.
  #incoming: Promise<void> = Promise.resolve();
  #outgoing: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(options: ReachOptions) {
    this.#o = options;
  }

  /** Whether there is a way at all. */
  get open(): boolean {
    return this.#o.signal.state === "joined" || this.#o.relays.reaches(this.#o.peer);
  }

  /** Whether the server is there and knows the member, as far as it has told. */
  get served(): boolean {
    return this.#o.signal.state === "joined" && performance.now() >= this.#unknownUntil;
  }

  /** Sends a description, if there is a way; whether it arrives is not known. */
  send(d: Description): void {
    const { keys, own, peer, signal, relays } = this.#o;
    if (!this.open) return;
    this.#outgoing = this.#outgoing.then(async () => {
      try {
        const sealed = await sealDescription(keys, own, peer, d);
        const known = performance.now() >= this.#unknownUntil;
        // A server that did not know the member may know it by now; but other members come first then.
        if (!(known && signal.signal(peer, sealed)) && !relays.send(peer, sealed))
          signal.signal(peer, sealed);
      } catch {
        // A description over the limit cannot be sent: the attempt ends by its timeout.
      }
    });
  }

  /** Takes an envelope from the member. */
  receive(sealed: string): void {
    if (this.#waiting >= maxWaiting) return;
    this.#waiting++;
    const { keys, own, peer, relays } = this.#o;
    this.#incoming = this.#incoming.then(async () => {
      this.#waiting--;
      try {
        this.#o.receive(await openDescription(keys, peer, own, sealed));
      } catch {
        relays.drop(); // it does not open, or is of a later version
      }
    });
  }

  /** The server could not pass something on to the member. */
  unknown(): void {
    const now = performance.now();
    const before = this.#unknownUntil;
    this.#unknownUntil = now + this.#o.timing.unknown;
    if (before <= now) queueMicrotask(() => this.#o.another());
  }

  /** The server knows the member. */
  known(): void {
    this.#unknownUntil = Number.NEGATIVE_INFINITY;
  }
}
