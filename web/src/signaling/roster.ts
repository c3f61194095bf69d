// Who is in the room, as seen through a server that comes and goes.

import type { PeerID } from "./id.ts";
import type { Member, Meta } from "./messages.ts";

/** How long a member that a restarted server does not know yet still counts as one, in ms. */
export const AbsenceGrace = 30_000;

/** What a roster reports: a member is new or has new meta, or is gone. */
export interface RosterEvents {
  member(peer: PeerID, meta: Meta): void;
  gone(peer: PeerID): void;
}

/**
 * The members of a room, other than this one. While the server is away the list stays as it was; a member missing in
 * the first `joined` after that has `AbsenceGrace` to come back. Times are in ms, on any clock that rises.
 */
export class Roster {
  readonly #members = new Map<PeerID, { meta: Meta; missingSince: number | undefined }>();
  readonly #events: RosterEvents;

  constructor(events: RosterEvents) {
    this.#events = events;
  }

  /** The members, in no particular order. */
  *members(): Iterable<Member> {
    for (const [peer, { meta }] of this.#members) yield { peer, meta };
  }

  /** The server listed `members` at `now`. */
  joined(members: readonly Member[], now: number): void {
    const listed = new Set(members.map((m) => m.peer));
    for (const [peer, entry] of this.#members) {
      if (!listed.has(peer)) entry.missingSince ??= now;
    }
    for (const m of members) this.present(m.peer, m.meta);
  }

  /** The server announced `peer`. */
  present(peer: PeerID, meta: Meta): void {
    const known = this.#members.get(peer);
    if (known) known.missingSince = undefined;
    if (known && sameMeta(known.meta, meta)) return;
    this.#members.set(peer, { meta, missingSince: undefined });
    this.#events.member(peer, meta);
  }

  /** The server said that `peer` is gone. */
  left(peer: PeerID): void {
    if (this.#members.delete(peer)) this.#events.gone(peer);
  }

  /** Drops those whose grace is over at `now`. To be called every few seconds. */
  expire(now: number): void {
    for (const [peer, { missingSince }] of this.#members) {
      if (missingSince !== undefined && now - missingSince >= AbsenceGrace) this.left(peer);
    }
  }
}

function sameMeta(a: Meta, b: Meta): boolean {
  return a.name === b.name && a.replica === b.replica && a.reader === b.reader;
}
