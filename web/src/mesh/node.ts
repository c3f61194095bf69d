// The page's side of the mesh: links to members of the room, and the messages between those links and the core,
// which is elsewhere.

import type { SiteID } from "../changeset/change.ts";
import { SignalClient, type SignalState } from "../signaling/client.ts";
import { BrowserLinks } from "../signaling/graph.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Keys } from "../signaling/link.ts";
import type { ICEServer, Meta } from "../signaling/messages.ts";
import { marshal } from "../syncproto/codec.ts";
import { TypeBye } from "../syncproto/message.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { Conn } from "./conn.ts";
import { Link, type MeshCore } from "./link.ts";
import { type MemberLink, MeshMember, unlinked } from "./member.ts";
import type { Sessions } from "./negotiate.ts";
import { Neighbours } from "./neighbours.ts";
import { NetworkWatch, pageSources } from "./network.ts";
import { type Neighbour, type RelayFigures, Relays } from "./relay.ts";
import { defaultTiming, type Timing } from "./timing.ts";

/** What a mesh is made of. */
export interface MeshOptions {
  readonly keys: Keys;
  readonly site: SiteID;
  readonly peer: PeerID;
  /** What others see, see `Meta.name`. */
  readonly name: string;
  /** WebSocket addresses of signaling servers. */
  readonly urls: readonly string[];
  /** For signaling servers that ask for one. */
  readonly joinToken?: string | undefined;
  /** Links are made over TURN relays only. */
  readonly relayOnly?: boolean;
  readonly core: MeshCore;
  /** Something in `members()` or `signal()` is new. Called often. */
  changed(): void;
  readonly timing?: Timing;
}

/** Keeps links to the members of a room: to all of a small one, to some of a large one. It lives in a page, which has the RTCPeerConnections; nothing here blocks. */
export class Mesh {
  readonly #o: MeshOptions;
  readonly #timing: Timing;
  readonly #signal: SignalClient;
  readonly #relays: Relays;
  readonly #near: Neighbours;
  readonly #listed = new Map<PeerID, Meta>();
  readonly #sessions = new Map<PeerID, Sessions>(); // of members that are not looked after now
  readonly #members = new Map<PeerID, MeshMember>();
  readonly #links = new Map<LinkID, Link>();
  readonly #byConn = new Map<Conn, Link>();
  #site: SiteID;
  #nextLink: LinkID = 1;
  #iceServers: readonly ICEServer[] = [];
  #signalError: string | undefined;
  #lastSignal: SignalState = "waiting";
  #timer: ReturnType<typeof setInterval> | undefined;
  #choosing = false;
  readonly #network = new NetworkWatch(pageSources(), (moved) => this.wake(moved));
  #closed = false;

  constructor(options: MeshOptions) {
    this.#o = options;
    this.#site = options.site;
    this.#timing = options.timing ?? defaultTiming;
    const meta = { replica: false, reader: options.keys.writer === undefined, name: options.name };
    this.#near = new Neighbours({ peer: options.peer, meta }, this.#timing, this.#listed);
    this.#signal = new SignalClient({
      urls: options.urls,
      room: options.keys.room,
      peer: options.peer,
      meta,
      joinToken: options.joinToken,
      events: {
        state: (state, error) => this.#signalState(state, error),
        member: (peer, meta) => this.#joined(peer, meta),
        gone: (peer) => this.#left(peer),
        iceServers: (servers) => {
          this.#iceServers = servers;
        },
        signal: (from, sealed) => {
          const member = this.#sender(from);
          member?.reach.known();
          member?.reach.receive(sealed);
        },
        unreachable: (peer) => this.#members.get(peer)?.reach.unknown(),
      },
    });
    this.#relays = new Relays({
      own: options.peer,
      neighbours: () => this.#neighbours(),
      receive: (from, sealed) => {
        const member = this.#sender(from);
        member?.reach.receive(sealed);
        return member !== undefined;
      },
    });
  }

  /** Joins the room. Once. */
  start(): void {
    this.#network.start();
    this.#timer = setInterval(() => this.#beat(), this.#timing.beat);
    this.#signal.start();
  }

  /** Sends a message of the core's. */
  send(link: LinkID, bytes: Uint8Array): void {
    this.#links.get(link)?.send(bytes);
  }

  /** Sends what is queued, closes the link, and reports it as closed. `reason`: why, a sentence. */
  closeLink(link: LinkID, reason: string | undefined): void {
    const open = this.#links.get(link);
    if (!open) return;
    const member = this.#members.get(open.peer);
    open.farewell = true;
    if (member) member.refused = reason;
    void member?.negotiation.refuse(open.conn);
  }

  /** This side goes on as `site`. All links that came about under another one end, and all members are met anew. */
  rename(site: SiteID): void {
    this.#site = site;
    for (const m of this.#members.values()) m.renamed();
    this.#o.changed();
  }

  /** Looks at once whether links and server still live. `moved`: the network is probably another one. */
  wake(moved: boolean): void {
    this.#signal.wake();
    for (const m of this.#members.values()) m.negotiation.wake(moved);
  }

  /** The other members, and those that left the room while a channel to them is open. */
  members(): MemberLink[] {
    const views = [...this.#members.values()].map((m) => {
      const { conn } = m.negotiation;
      return m.view(conn && this.#byConn.get(conn)?.id);
    });
    for (const [peer, meta] of this.#listed) {
      if (!this.#members.has(peer)) views.push(unlinked(peer, meta));
    }
    return views;
  }

  /** Counts of envelopes that went over members. */
  relayed(): RelayFigures {
    return this.#relays.figures;
  }

  /** How it stands with the signaling server; `error` is a sentence. */
  signal(): { readonly state: SignalState; readonly error: string | undefined } {
    return { state: this.#signal.state, error: this.#signalError };
  }

  /** Says goodbye on every link, leaves the room and ends everything. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.#network.stop();
    const bye = marshal({ type: TypeBye, sentence: "the page was closed" });
    for (const { conn } of this.#links.values()) conn.channel.send(bye);
    for (const m of this.#members.values()) m.negotiation.close();
    this.#signal.close();
  }

  #beat(): void {
    const now = performance.now();
    this.#network.beat();
    for (const m of [...this.#members.values()]) {
      if (!this.#forgetIfOver(m)) m.beat();
    }
    this.#look(now);
  }

  #signalState(state: SignalState, error: string | undefined): void {
    this.#signalError = error;
    if (state !== this.#lastSignal && (state === "joined" || this.#lastSignal === "joined")) {
      for (const m of this.#members.values()) {
        if (state === "joined") m.negotiation.wake(false);
        m.negotiation.repeat();
      }
    }
    this.#lastSignal = state;
    this.#o.changed();
  }

  #joined(peer: PeerID, meta: Meta): void {
    this.#listed.set(peer, meta);
    const known = this.#members.get(peer);
    if (known) {
      known.meta = meta;
      known.listed = true;
      known.reach.known();
    }
    this.#chooseSoon();
    this.#o.changed();
  }

  // A member that left keeps its open channel.
  #left(peer: PeerID): void {
    this.#listed.delete(peer);
    this.#sessions.delete(peer);
    const member = this.#members.get(peer);
    member?.left();
    if (member) this.#forgetIfOver(member);
    this.#chooseSoon();
    this.#o.changed();
  }

  // Members come many at a time.
  #chooseSoon(): void {
    if (this.#choosing) return;
    this.#choosing = true;
    queueMicrotask(() => {
      this.#choosing = false;
      if (!this.#closed) this.#choose();
    });
  }

  // Starts to look after the members that a link is wanted to, and no longer makes links to others.
  #choose(): void {
    this.#near.choose();
    for (const peer of this.#near.wanted) {
      const meta = this.#listed.get(peer);
      if (meta) (this.#members.get(peer) ?? this.#add(peer, meta)).want(true, !this.#near.graph.has(peer));
    }
    for (const m of [...this.#members.values()]) {
      if (!this.#near.wanted.has(m.peer)) m.want(false);
    }
    this.#o.changed();
  }

  // Gives up neighbours that do not answer, and closes links that nobody needs any more.
  #look(now: number): void {
    const at = (peer: PeerID) => {
      const m = this.#members.get(peer);
      const { conn } = m?.negotiation ?? {};
      return m?.now(now, conn && this.#byConn.get(conn));
    };
    const open = [...this.#byConn.values()];
    const heard = open.some(({ conn }) => conn.channel.silence < this.#timing.repair);
    if (this.#near.look(now, this.#signal.state !== "joined" && !heard, at)) this.#choose();
    const complete = this.#near.complete(at);
    for (const link of open) {
      const m = this.#members.get(link.peer);
      if (!m?.listed || link.farewell) continue; // of those that left the room, links live on
      if (m.wanted) {
        link.need(true);
        continue;
      }
      if (!this.#near.surplus(now, m.peer, complete)) continue;
      if (link.spareThere || (!m.asked && !(link.live && this.#admits(m.meta)))) {
        link.conn.channel.send(marshal({ type: TypeBye, sentence: "this link is not needed any more" }));
        this.closeLink(link.id, undefined);
      } else {
        m.asked = true; // it is kept for the other side, as if that had asked; for it may believe the same of this one
        link.need(false);
      }
    }
  }

  // Whether there is a place for a link that this side does not need, to a member that does.
  #admits(meta: Meta): boolean {
    return this.#near.mayLink(meta) && this.#asked() < BrowserLinks;
  }

  // Who an envelope is from: a member that a link is wanted to, or any other that is listed.
  #sender(peer: PeerID): MeshMember | undefined {
    const meta = this.#listed.get(peer);
    return this.#members.get(peer) ?? (meta && this.#add(peer, meta));
  }

  #add(peer: PeerID, meta: Meta): MeshMember {
    const member: MeshMember = new MeshMember(
      {
        keys: this.#o.keys,
        own: this.#o.peer,
        peer,
        meta,
        site: () => this.#site,
        signal: this.#signal,
        relays: this.#relays,
        timing: this.#timing,
        sessions: this.#sessions.get(peer),
        configuration: () => ({
          iceServers: [...this.#iceServers],
          iceTransportPolicy: this.#o.relayOnly ? "relay" : "all",
        }),
        admits: (m) => this.#admits(m),
        events: {
          open: (conn) => this.#open(member, conn),
          message: (conn, bytes) => this.#byConn.get(conn)?.message(bytes),
          fault: (conn, error) => this.#byConn.get(conn)?.fault(error),
          closed: (conn) => this.#gone(member, conn),
          changed: () => this.#o.changed(),
        },
      },
      performance.now(),
    );
    this.#members.set(peer, member);
    return member;
  }

  // How many links there are that others ask for, beyond those of the graph.
  #asked(): number {
    return [...this.#members.values()].filter((m) => m.asked).length;
  }

  #forgetIfOver(m: MeshMember): boolean {
    if (!m.over(performance.now(), this.#relays.reaches(m.peer))) return false;
    m.forget();
    this.#members.delete(m.peer);
    if (m.listed) this.#sessions.set(m.peer, m.negotiation.sessions);
    this.#relays.forget(m.peer);
    this.#o.changed();
    return true;
  }

  *#neighbours(): Generator<Neighbour> {
    for (const { id, peer, conn, live } of this.#links.values()) {
      if (!live || !conn.channel.isOpen) continue;
      yield {
        link: id,
        peer,
        healthy: this.#members.get(peer)?.negotiation.health === "good",
        waiting: conn.channel.waiting,
        send: (bytes) => conn.channel.send(bytes),
      };
    }
  }

  // A link became live. With the first ones, what could not be sent before can be.
  #live(): void {
    if ([...this.#neighbours()].length > 2) return;
    for (const m of this.#members.values()) if (!m.reach.served) m.negotiation.repeat();
  }

  #open(member: MeshMember, conn: Conn): void {
    const link = new Link({
      id: this.#nextLink++,
      peer: member.peer,
      conn,
      keys: this.#o.keys,
      core: this.#o.core,
      relays: this.#relays,
      live: () => this.#live(),
    });
    member.refused = undefined;
    member.site = conn.remote?.site;
    member.ghost = false;
    for (const m of this.#members.values()) if (m !== member) m.succeeded(member.site);
    this.#links.set(link.id, link);
    this.#byConn.set(conn, link);
    this.#o.changed();
  }

  #gone(member: MeshMember, conn: Conn): void {
    const link = this.#byConn.get(conn);
    if (link) {
      this.#byConn.delete(conn);
      this.#links.delete(link.id);
      link.closed();
      if (!link.farewell) member.mournUntil = performance.now() + this.#timing.mourn;
      this.#near.unlinked(member.peer);
    }
    if (this.#members.get(member.peer) === member) this.#forgetIfOver(member);
  }
}
