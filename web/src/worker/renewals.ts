// When a database takes a new site id, as in Go's pkg/mesh/renew.go.

import { type Event, EventSameSite } from "../syncproto/status.ts";
import type { Renewal } from "./store.ts";

// Bounds of what others can make a driver do: each new site id stays in everybody's vector for good.

/** How many new site ids a driver asks its store for. */
export const MaxRenewals = 8;
/** The least time between two of them, in ms. */
export const RenewalPause = 60_000;

/** What the links under the old site id end with. */
export const renewing = "this peer takes a new site id";

/** What a driver knows of new site ids. */
export class Renewals {
  readonly #writer: boolean;
  readonly #pause: number;
  #last = Number.NEGATIVE_INFINITY; // ms
  #never: string | undefined; // why the store has no new site id to give
  /** How many there were. */
  count = 0;
  /** The reason of the one that goes on; undefined: none does. */
  reason: string | undefined;

  /** `writer`: the role of this side. `pause`: RenewalPause, or less in tests. */
  constructor(writer: boolean, pause: number) {
    this.#writer = writer;
    this.#pause = pause;
  }

  /**
   * Takes the core's word that others hold writes of this site that are not here, or that another has the same site id: then own
   * versions may be in use elsewhere with other content. Sets `reason` if a new site id is to be taken, and else returns what a
   * person should know. Not to be called while one goes on.
   *
   * It cannot be this page itself that was met: the room does not list it to itself, a proof of the writer role holds for one
   * direction of one connection, and the database is open once. Nor is everybody believed: a claim without end would keep this side renewing.
   */
  dispute(e: Event, now: number): string | undefined {
    const copied = e.kind === EventSameSite;
    const what = copied
      ? "another device has a copy of this database"
      : "another device has changes of this database that are not here";
    if (!e.proved && this.#writer) {
      return `a device that has not shown the room's write link is not believed: it says that ${what}`;
    }
    if (this.#never !== undefined) return `${what}, and the two do not sync, because ${this.#never}`;
    if (this.count >= MaxRenewals) {
      return `${what}, after ${MaxRenewals} new ids, and the two do not sync: that device may be at fault; make a new room without it, or reload this page`;
    }
    if (now - this.#last < this.#pause) {
      return `${what}, so soon after a new id, and the two do not sync for now; it is tried again by itself`;
    }
    this.reason = copied
      ? "another peer has the same site id, so that one database is a copy of the other"
      : "a peer has seen writes of this database that it does not hold, so that it was restored from an older copy";
    return undefined;
  }

  /** The store has answered. Returns the line for the log, or undefined if there is no new site id. */
  done(r: Renewal, now: number): string | undefined {
    const reason = this.reason;
    this.reason = undefined;
    if ("refused" in r) {
      this.#never = r.refused;
      return undefined;
    }
    this.count++;
    this.#last = now;
    const { old, site, entries, reasserted } = r;
    return `the database goes on under a new site id: ${reason}; old=${old} new=${site} entries=${entries} reasserted=${reasserted} took=${Math.round(r.millis)}ms`;
  }
}
