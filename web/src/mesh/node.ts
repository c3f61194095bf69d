// The page's side of the mesh: a link to every member of the room, and the messages between those links and the core,
// which is elsewhere.

import { fromHex, type SiteID } from "../changeset/change.ts";
import { SignalClient, type SignalState } from "../signaling/client.ts";
import type { Description } from "../signaling/description.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Keys } from "../signaling/link.ts";
import type { ICEServer, Meta } from "../signaling/messages.ts";
import { signRole, verifyRole } from "../signaling/proof.ts";
import { openDescription, sealDescription } from "../signaling/seal.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { CodeBadProof, CodeInternal, type ProtocolError } from "../syncproto/errors.ts";
import { TypeBye, TypeHello } from "../syncproto/message.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { ChannelFigures } from "./channel.ts";
import type { Conn, Stage } from "./conn.ts";
import { Negotiation } from "./negotiate.ts";
import { defaultTiming, type Timing } from "./timing.ts";

/** A gap between two beats after which the page must have been asleep, in ms. */
const asleep = 3_000;

/** The core, as the mesh sees it. Calls arrive in order; none blocks. */
export interface MeshCore {
  /** The channel of a link is open. `proof` is this side's role proof for it. */
  open(link: LinkID, remote: SiteID, proof: Uint8Array): void;
  /** A message came in; the core owns its bytes. The proof in a hello has been verified. */
  message(link: LinkID, bytes: Uint8Array<ArrayBuffer>): void;
  /** What came in was against the protocol: the core tells the other side and asks for the end of the link. */
  refuse(link: LinkID, code: number, sentence: string): void;
  /** The link is gone. */
  closed(link: LinkID): void;
}

/** What a mesh is made of. */
export interface MeshOptions {
  readonly keys: Keys;
  readonly site: SiteID;
  readonly peer: PeerID;
  /** What others see, see `Meta.name`. */
  readonly name: string;
  /** WebSocket addresses of signaling servers. */
  readonly urls: readonly string[];
  readonly core: MeshCore;
  /** Something in `members()` or `signal()` is new. Called often. */
  changed(): void;
  readonly timing?: Timing;
}

/** How a member and the link to it are. */
export interface MemberLink {
  readonly peer: PeerID;
  readonly meta: Meta;
  /** The link's number at the core; undefined while no channel is open. */
  readonly link: LinkID | undefined;
  readonly stage: Stage | "waiting";
  /** The channel is open, but silent. */
  readonly suspect: boolean;
  /** Where the last attempt failed, unless a channel has opened since. */
  readonly failedAt: Stage | undefined;
  /** Why the last link was closed on purpose, a sentence. */
  readonly refused: string | undefined;
  readonly figures: ChannelFigures | undefined;
}

/** An open channel. Messages wait until it has been made known to the core. */
interface OpenLink {
  readonly id: LinkID;
  readonly conn: Conn;
  readonly member: Member;
  /** One step after the other; undefined once there is nothing left to wait for. */
  tasks: Promise<void> | undefined;
}

interface Member {
  readonly peer: PeerID;
  meta: Meta;
  listed: boolean;
  readonly negotiation: Negotiation;
  refused: string | undefined;
  /** Envelopes are opened and sealed one after the other, so that they keep their order. */
  incoming: Promise<void>;
  outgoing: Promise<void>;
}

/** Keeps a link to every member. It lives in a page, which has the RTCPeerConnections; nothing here blocks. */
export class Mesh {
  readonly #o: MeshOptions;
  readonly #timing: Timing;
  readonly #signal: SignalClient;
  readonly #members = new Map<PeerID, Member>();
  readonly #links = new Map<LinkID, OpenLink>();
  readonly #byConn = new Map<Conn, OpenLink>();
  #nextLink: LinkID = 1;
  #iceServers: readonly ICEServer[] = [];
  #signalError: string | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #lastBeat = 0;
  #closed = false;

  constructor(options: MeshOptions) {
    this.#o = options;
    this.#timing = options.timing ?? defaultTiming;
    this.#signal = new SignalClient({
      urls: options.urls,
      room: options.keys.room,
      peer: options.peer,
      meta: { replica: false, name: options.name },
      events: {
        state: (state, error) => {
          this.#signalError = error;
          if (state === "joined") for (const m of this.#members.values()) m.negotiation.wake();
          options.changed();
        },
        member: (peer, meta) => this.#joined(peer, meta),
        gone: (peer) => this.#left(peer),
        iceServers: (servers) => {
          this.#iceServers = servers;
        },
        signal: (from, sealed) => this.#receive(from, sealed),
        unreachable: () => {}, // attempts are repeated
      },
    });
  }

  /** Joins the room. Once. */
  start(): void {
    addEventListener("online", this.#wake);
    addEventListener("pageshow", this.#wake);
    document.addEventListener("visibilitychange", this.#visible);
    this.#lastBeat = performance.now();
    this.#timer = setInterval(() => this.#beat(), this.#timing.beat);
    this.#signal.start();
  }

  /** Sends a message of the core's. */
  send(link: LinkID, bytes: Uint8Array): void {
    this.#links.get(link)?.conn.channel.send(bytes);
  }

  /** Sends what is queued, closes the link, and reports it as closed. `reason`: why, a sentence. */
  closeLink(link: LinkID, reason: string | undefined): void {
    const open = this.#links.get(link);
    if (!open) return;
    open.member.refused = reason;
    void open.member.negotiation.refuse(open.conn);
  }

  /** Looks at once whether links and server still live. */
  wake(): void {
    this.#signal.wake();
    for (const m of this.#members.values()) m.negotiation.wake();
  }

  /** The other members, and those that left the room while a channel to them is open. */
  members(): MemberLink[] {
    return [...this.#members.values()].map((m) => this.#view(m));
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
    removeEventListener("online", this.#wake);
    removeEventListener("pageshow", this.#wake);
    document.removeEventListener("visibilitychange", this.#visible);
    const bye = marshal({ type: TypeBye, sentence: "the page was closed" });
    for (const { conn } of this.#links.values()) conn.channel.send(bye);
    for (const m of this.#members.values()) m.negotiation.close();
    this.#signal.close();
  }

  readonly #wake = () => this.wake();

  readonly #visible = () => {
    if (document.visibilityState === "visible") this.wake();
  };

  #beat(): void {
    const now = performance.now();
    if (now - this.#lastBeat > asleep && document.visibilityState === "visible") this.wake();
    this.#lastBeat = now;
    for (const m of this.#members.values()) m.negotiation.beat();
  }

  #joined(peer: PeerID, meta: Meta): void {
    const known = this.#members.get(peer);
    if (known) {
      known.meta = meta;
      known.listed = true;
      this.#o.changed();
      return;
    }
    const member: Member = {
      peer,
      meta,
      listed: true,
      refused: undefined,
      incoming: Promise.resolve(),
      outgoing: Promise.resolve(),
      negotiation: new Negotiation({
        own: this.#o.peer,
        peer,
        site: fromHex(this.#o.site),
        timing: this.#timing,
        iceServers: () => this.#iceServers,
        send: (d) => this.#send(member, d),
        events: {
          open: (conn) => this.#open(member, conn),
          message: (conn, bytes) => this.#message(conn, bytes),
          fault: (conn, error) => this.#fault(conn, error),
          closed: (conn) => this.#gone(member, conn),
          changed: () => this.#o.changed(),
        },
      }),
    };
    this.#members.set(peer, member);
    member.negotiation.start();
    this.#o.changed();
  }

  // A member that left keeps its open channel.
  #left(peer: PeerID): void {
    const member = this.#members.get(peer);
    if (!member) return;
    member.listed = false;
    if (!member.negotiation.conn?.channel.isOpen) this.#forget(member);
    this.#o.changed();
  }

  #forget(member: Member): void {
    member.negotiation.close();
    this.#members.delete(member.peer);
  }

  #receive(from: PeerID, sealed: string): void {
    const member = this.#members.get(from);
    if (!member) return;
    member.incoming = member.incoming.then(async () => {
      try {
        member.negotiation.receive(await openDescription(this.#o.keys, from, this.#o.peer, sealed));
      } catch {
        // An envelope that does not open, or is of a later version, is dropped.
      }
    });
  }

  #send(member: Member, d: Description): boolean {
    if (this.#signal.state !== "joined") return false;
    member.outgoing = member.outgoing.then(async () => {
      try {
        const sealed = await sealDescription(this.#o.keys, this.#o.peer, member.peer, d);
        this.#signal.signal(member.peer, sealed);
      } catch {
        // A description over the limit cannot be sent: the attempt ends by its timeout.
      }
    });
    return true;
  }

  #open(member: Member, conn: Conn): void {
    const link: OpenLink = { id: this.#nextLink++, conn, member, tasks: undefined };
    member.refused = undefined;
    this.#links.set(link.id, link);
    this.#byConn.set(conn, link);
    this.#run(link, async () => {
      const { remote } = conn;
      if (!remote) throw new Error("the channel opened without a description of the other side");
      const proof = await signRole(this.#o.keys, conn.ownEnd(), remote);
      if (this.#links.has(link.id)) this.#o.core.open(link.id, remote.site, proof);
    });
    this.#o.changed();
  }

  #message(conn: Conn, bytes: Uint8Array<ArrayBuffer>): void {
    const link = this.#byConn.get(conn);
    if (!link) return;
    if (!link.tasks && bytes[0] !== TypeHello) {
      this.#o.core.message(link.id, bytes);
      return;
    }
    this.#run(link, async () => {
      if (!this.#links.has(link.id)) return;
      if (bytes[0] === TypeHello && !(await this.#proven(conn, bytes))) {
        const sentence = "the proof of the writer role does not verify";
        this.#o.core.refuse(link.id, CodeBadProof, sentence);
      } else if (this.#links.has(link.id)) {
        this.#o.core.message(link.id, bytes);
      }
    });
  }

  // Whether a hello claims no role that it does not prove. What does not parse claims none; the core refuses it.
  async #proven(conn: Conn, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    let proof: Uint8Array;
    try {
      const hello = parse(bytes);
      if (hello.type !== TypeHello || !hello.writer) return true;
      proof = hello.proof;
    } catch {
      return true;
    }
    const { remote } = conn;
    const { writerPublic } = this.#o.keys;
    return !!remote && verifyRole(writerPublic, remote, conn.ownEnd(), new Uint8Array(proof));
  }

  #fault(conn: Conn, error: ProtocolError): void {
    const link = this.#byConn.get(conn);
    if (!link) return;
    this.#run(link, async () => this.#o.core.refuse(link.id, error.code, error.sentence));
  }

  #gone(member: Member, conn: Conn): void {
    const link = this.#byConn.get(conn);
    if (link) {
      this.#byConn.delete(conn);
      this.#links.delete(link.id);
      this.#run(link, async () => this.#o.core.closed(link.id));
    }
    if (!member.listed) this.#forget(member);
  }

  #run(link: OpenLink, step: () => Promise<void>): void {
    const tasks = (link.tasks ?? Promise.resolve()).then(step).catch((error: unknown) => {
      const sentence = error instanceof Error ? error.message : String(error);
      this.#o.core.refuse(link.id, CodeInternal, sentence);
    });
    link.tasks = tasks;
    void tasks.then(() => {
      if (link.tasks === tasks) link.tasks = undefined;
    });
  }

  #view(m: Member): MemberLink {
    const { conn } = m.negotiation;
    return {
      peer: m.peer,
      meta: m.meta,
      link: conn && this.#byConn.get(conn)?.id,
      stage: conn?.stage ?? "waiting",
      suspect: m.negotiation.health !== "good",
      failedAt: m.negotiation.failedAt,
      refused: m.refused,
      figures: conn?.channel.isOpen ? conn.channel.figures : undefined,
    };
  }
}
