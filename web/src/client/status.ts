// What a client tells of the room, its members and the state of things.

import type { Stage } from "../mesh/conn.ts";
import type { MemberLink } from "../mesh/member.ts";
import type { SignalState } from "../signaling/client.ts";
import type { LinkStatus, Status } from "../syncproto/status.ts";
import type { StorageKind } from "../worker/protocol.ts";
import type { Parked } from "../worker/store.ts";

/** How a link to a member stands. */
export interface Member {
  /** Its id for this session, and what it calls itself (may be ""). */
  readonly peer: string;
  readonly name: string;
  /** It is always on. */
  readonly replica: boolean;
  /** `unlinked`: no link is needed; in a large room, members are linked over others. */
  readonly state: "unlinked" | "none" | "connecting" | "open" | "suspect" | "failed";
  /** The step that the link is in or failed at, in words. */
  readonly stage: string;
  /** Why there is no link, a sentence. */
  readonly error: string | undefined;
  /** The last round trip, in ms. */
  readonly roundTrip: number | undefined;
  /** Its role, once both sides have said hello. */
  readonly role: "writer" | "reader" | undefined;
  /** Bytes over the open channel. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Changes received from it and sent to it over the open channel. */
  readonly changesIn: number;
  readonly changesOut: number;
  /** About how many changes are still to come, and to be sent. */
  readonly remaining: number;
  readonly unsent: number;
  /** Its tables are the same as here. */
  readonly sameSchema: boolean;
  /** How its tables differ from those here, a sentence each; empty where they do not, or it is a reader and does not tell. */
  readonly schemaDifference: readonly string[];
}

/** Everything a client tells. A new object whenever something in it changed. */
export interface ClientStatus {
  /** false: a read link, and writes are refused. */
  readonly writer: boolean;
  /** This tab has the database and the links; other tabs of the same database go through it. */
  readonly leader: boolean;
  /** Where the database is kept: OPFS, or the slower IndexedDB. */
  readonly storage: StorageKind;
  /** Site id of the database, in hex. */
  readonly site: string;
  /** The connection to the signaling server. `error`: why there is none, a sentence. */
  readonly signal: { readonly state: SignalState; readonly error: string | undefined };
  /** The other members of the room, in order of their ids. */
  readonly members: readonly Member[];
  /** There is somebody to sync with, or nobody in the room to be linked with, and nothing is left to receive or to send. */
  readonly synced: boolean;
  /** Changes received in the transfer that is under way, or was last. */
  readonly received: number;
  /** About how many changes are still to come. */
  readonly remaining: number;
  /** Changes of others that are put aside, because they do not fit the tables here. */
  readonly parked: Parked;
  /**
   * New site ids that the database took since it was opened, because it had been put back to an older state or copied: what it
   * held stays, and all of it reaches the others.
   */
  readonly renewals: number;
  /** What a person should know or do, a sentence. */
  readonly problem: string | undefined;
}

const stageWords: Record<MemberLink["stage"], string> = {
  unlinked: "",
  waiting: "waiting for its turn",
  signaling: "waiting for the other side's answer",
  relaying: "asking a TURN server for a relay",
  gathering: "looking for this device's addresses",
  checking: "looking for a way through the network",
  securing: "encrypting",
  opening: "opening the channel",
  open: "",
  closed: "closed",
};

const failureSentences: Record<Stage, string> = {
  signaling: "the other side did not answer; its page may be asleep or closed; trying again",
  relaying:
    "links are to go over TURN relays only, and no TURN server gave one; its operator can find out why; trying again",
  gathering: "this browser found no network address to be reached at; trying again",
  checking:
    "no way through the network was found; a firewall or router is in between, and a TURN server would help; trying again",
  securing:
    "a way through the network was found, but no encrypted connection came about (DTLS); trying again",
  opening: "the encrypted connection is there, but the channel did not open (SCTP); trying again",
  open: "the link broke; trying again",
  closed: "the link was closed; trying again",
};

/** How far the transfer that is under way is. It keeps count from one picture of the core to the next. */
export class Progress {
  #base = 0; // changes received before this transfer
  #last = 0;
  #busy = false;

  /** Takes a picture; returns changes received in this transfer, and about how many are to come. */
  update(links: readonly LinkStatus[]): { received: number; remaining: number } {
    const remaining = links.reduce((n, l) => n + l.remaining, 0);
    const total = links.reduce((n, l) => n + l.received, 0);
    // The counts of a link go with it.
    if (total < this.#last) this.#base = Math.max(0, this.#base - (this.#last - total));
    if (remaining > 0 && !this.#busy) this.#base = this.#last;
    this.#busy = remaining > 0;
    this.#last = total;
    return { received: Math.max(0, total - this.#base), remaining };
  }
}

/** A member as the public API shows it. */
export function memberOf(m: MemberLink, core: LinkStatus | undefined): Member {
  const failed = m.failedAt !== undefined && m.stage === "waiting";
  const refused = m.refused !== undefined && m.link === undefined;
  const state =
    m.stage === "open"
      ? m.suspect
        ? "suspect"
        : "open"
      : failed || refused
        ? "failed"
        : m.stage === "unlinked"
          ? "unlinked"
          : m.stage === "waiting"
            ? "none"
            : "connecting";
  return {
    peer: m.peer,
    name: m.meta.name,
    replica: m.meta.replica,
    state,
    stage: stageWords[m.stage],
    error: refused ? m.refused : failed ? failureSentences[m.failedAt] : undefined,
    roundTrip: m.figures?.rtt,
    role: core?.live ? (core.writer ? "writer" : "reader") : undefined,
    bytesIn: m.figures?.bytesIn ?? 0,
    bytesOut: m.figures?.bytesOut ?? 0,
    changesIn: core?.received ?? 0,
    changesOut: core?.sent ?? 0,
    remaining: core?.remaining ?? 0,
    unsent: core?.unsent ?? 0,
    sameSchema: core?.schema ?? false,
    schemaDifference: core?.differences ?? [],
  };
}

/** Whether everybody who can be reached has everything. */
export function syncedWith(
  core: Status | undefined,
  members: readonly MemberLink[],
  signal: SignalState,
): boolean {
  if (!core?.synced) return false;
  const open = new Set(members.map((m) => m.link));
  const live = core.links.some((l) => l.live && open.has(l.link));
  return live || (members.every((m) => m.stage === "unlinked") && signal === "joined");
}
