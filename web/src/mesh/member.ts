// A member of the room, and what there is of a link to it.

import type { Description } from "../signaling/description.ts";
import type { Meta } from "../signaling/messages.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { ChannelFigures } from "./channel.ts";
import type { Stage } from "./conn.ts";
import type { Link } from "./link.ts";
import { type NegotiateOptions, Negotiation } from "./negotiate.ts";
import type { LinkNow } from "./neighbours.ts";
import { Reach, type ReachOptions } from "./reach.ts";

/** How a member and the link to it are. */
export interface MemberLink {
  readonly peer: string;
  readonly meta: Meta;
  /** The link's number at the core; undefined while no channel is open. */
  readonly link: LinkID | undefined;
  /** `unlinked`: none is needed; in a large room, members are linked over others. */
  readonly stage: Stage | "waiting" | "unlinked";
  /** The channel is open, but silent. */
  readonly suspect: boolean;
  /** Where the last attempt failed, unless a channel has opened since. */
  readonly failedAt: Stage | undefined;
  /** Why the last link was closed on purpose, a sentence. */
  readonly refused: string | undefined;
  readonly figures: ChannelFigures | undefined;
}

/** What a member is made of. */
export type MemberOptions = Omit<
  ReachOptions & NegotiateOptions,
  "receive" | "another" | "send" | "reachable"
> & {
  readonly meta: Meta;
  /** Whether a link that the member asks for is made, though none is wanted here. */
  admits(meta: Meta): boolean;
};

/** A member that a link is wanted to, or was, or that asks for one. */
export class MeshMember {
  meta: Meta;
  /** The room lists it. */
  listed = true;
  /** A link is wanted here. */
  wanted = false;
  /** None is wanted here, but the other side wants one. */
  asked = false;
  refused: string | undefined;
  /** The site of its last link. */
  site: string | undefined;
  /** Another peer has come as that site: what is left is nobody. */
  ghost = false;
  /** Until when it is tried over other members though the room does not list it, ms. */
  mournUntil = Number.NEGATIVE_INFINITY;
  readonly reach: Reach;
  readonly negotiation: Negotiation;
  readonly #o: MemberOptions;
  #heededUntil: number; // what it asks for may be on its way, ms

  constructor(options: MemberOptions, now: number) {
    this.#o = options;
    this.meta = options.meta;
    this.#heededUntil = now + options.timing.want;
    this.reach = new Reach({
      ...options,
      receive: (d) => this.#take(d),
      another: () => this.negotiation.repeat(),
    });
    this.negotiation = new Negotiation({
      ...options,
      send: (d) => this.reach.send(d),
      reachable: () => this.reach.open,
    });
  }

  get peer(): string {
    return this.#o.peer;
  }

  /** Whether a link is wanted here from now on; `hurried`: in the place of another, which this member does not know. */
  want(wanted: boolean, hurried = false): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    if (!wanted) return;
    this.asked = false; // if it is wanted no more one day, the other side may ask again
    if (!this.negotiation.conn) this.negotiation.start(hurried);
  }

  /** This side has another site. */
  renamed(): void {
    this.refused = undefined;
    this.negotiation.renamed();
    this.beat();
  }

  /** To be called every `timing.beat`. Where no link is wanted, none is begun. */
  beat(): void {
    if (this.wanted || !this.listed || this.negotiation.conn) this.negotiation.beat();
  }

  /** Another peer has come as `site`. A member that was that site is what is left of a page or program, and is not mourned. */
  succeeded(site: string | undefined): void {
    if (this.site === site) this.ghost = true;
  }

  /** The room no longer lists it. */
  left(): void {
    this.listed = false;
    this.wanted = false;
    this.asked = false;
    this.reach.unknown();
  }

  /**
   * Whether there is nothing left to look after at `now`. One that was cut off from the server alone, and then from here, may
   * be found again over other members: that is what `reaches` tells.
   */
  over(now: number, reaches: boolean): boolean {
    const { conn } = this.negotiation;
    if (this.wanted || conn?.channel.isOpen) return false;
    if (this.listed) return now >= this.#heededUntil && !(this.asked && conn);
    return this.ghost || now >= this.mournUntil || !reaches;
  }

  /** Ends it for good. The other side need not wait for the end of an attempt. */
  forget(): void {
    const { conn } = this.negotiation;
    if (conn && !conn.opened) this.reach.send({ kind: "bye", session: conn.session });
    this.negotiation.close();
  }

  /** How the link to it is; `link` is what the open channel is to the core. */
  now(now: number, link: Link | undefined): LinkNow {
    const { conn, failedAt } = this.negotiation;
    return {
      open: conn?.channel.isOpen === true,
      heard: now - (conn?.channel.silence ?? 0),
      live: link?.live === true,
      writer: link?.writer === true,
      coming: conn !== undefined && !conn.opened && conn.remote !== undefined && failedAt === undefined,
    };
  }

  view(link: LinkID | undefined): MemberLink {
    const { conn, health, failedAt } = this.negotiation;
    return {
      peer: this.peer,
      meta: this.meta,
      link,
      stage: conn?.stage ?? (this.wanted || !this.listed ? "waiting" : "unlinked"),
      suspect: health !== "good",
      failedAt,
      refused: this.refused,
      figures: conn?.channel.isOpen ? conn.channel.figures : undefined,
    };
  }

  // Takes a description. Of a member that no link is wanted to, an offer or a `want` asks for one: its list may be another one
  // than ours, or this side is to take the place of somebody whom it cannot reach.
  #take(d: Description): void {
    const { conn } = this.negotiation;
    const about = conn && d.session <= conn.session; // the link that there is
    if (this.listed && !this.wanted && !this.asked && !about) {
      if (d.kind !== "offer" && d.kind !== "want") return;
      if (!this.#o.admits(this.meta)) return;
      this.asked = true;
      this.#heededUntil = performance.now() + this.#o.timing.want;
    }
    this.negotiation.receive(d);
  }
}

/** A listed member that there is nothing of. */
export function unlinked(peer: string, meta: Meta): MemberLink {
  return {
    peer,
    meta,
    link: undefined,
    stage: "unlinked",
    suspect: false,
    failedAt: undefined,
    refused: undefined,
    figures: undefined,
  };
}
