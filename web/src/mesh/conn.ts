// One attempt at a link: an RTCPeerConnection with its one data channel.

import { type SiteID, toHex } from "../changeset/change.ts";
import type { Candidate, Description } from "../signaling/description.ts";
import { type End, fingerprint } from "../signaling/proof.ts";
import type { ProtocolError } from "../syncproto/errors.ts";
import { Channel } from "./channel.ts";
import type { Timing } from "./timing.ts";

const channelLabel = "crmesh";
const channelProtocol = "crmesh.sync.1";
const nonceLen = 32;
/** What is remembered of a connection so that it can be sent again. */
const maxRepeated = 64;

/** How far a connection is: which step is under way, or the link is open. */
export type Stage =
  | "signaling" // waits for the answer
  | "relaying" // waits for a relay, as only relays are to be used
  | "gathering" // looks for addresses of its own
  | "checking" // tries pairs of addresses
  | "securing" // DTLS
  | "opening" // SCTP
  | "open"
  | "closed";

/** What the other side told of itself in its offer or answer. */
export interface RemoteEnd extends End {
  /** 16 bytes in hex. */
  readonly site: string;
}

/** What a connection reports, never from within a call into it. */
export interface ConnEvents {
  /** An address of this side, for the other; null: there are no more. */
  candidate(c: Candidate | null): void;
  /** The channel is open. Once. */
  open(): void;
  message(bytes: Uint8Array<ArrayBuffer>): void;
  /** The other side broke the protocol. */
  fault(error: ProtocolError): void;
  /** ICE found that the path is gone. */
  lost(): void;
  /** The stage or a figure changed. */
  changed(): void;
  /** It is over. Once. */
  closed(): void;
}

/** What was being done to a connection did not come to its end before it was closed. */
export class ClosedError extends Error {
  override name = "ClosedError";

  constructor() {
    super("the connection was closed");
  }
}

let live = 0;

/** How many connections this page has that are not closed. */
export function liveConnections(): number {
  return live;
}

/**
 * One session: one RTCPeerConnection, one nonce and one certificate on each side. It is closed exactly once, on whatever
 * way it ends.
 */
export class Conn {
  readonly session: number;
  /** This side's site, as the other one is told of it. */
  readonly ownSite: SiteID;
  readonly nonce = crypto.getRandomValues(new Uint8Array(nonceLen));
  readonly pc: RTCPeerConnection;
  readonly channel: Channel;
  /** When it was made, ms. */
  readonly since: number;
  /** When an ICE restart was begun, ms; 0: none is under way. */
  restartedAt = 0;
  /** When it was last looked at because the network may have changed, ms; 0: never. */
  probedAt = 0;
  /** An offer of this side is unanswered. */
  offering = false;
  /** The last description of this side, and its candidates: what may have to be sent again. */
  readonly sent: Description[] = [];
  /** The other side's last offer. */
  lastOffer: string | undefined;
  #remote: RemoteEnd | undefined;
  #opened = false;
  #closed = false;
  #lastStage: Stage = "signaling";
  #relayed: boolean; // there is a relay, or none is needed
  readonly #over: Promise<never>; // rejected on close
  #end!: (error: ClosedError) => void;
  readonly #events: ConnEvents;

  constructor(
    session: number,
    ownSite: SiteID,
    configuration: RTCConfiguration,
    events: ConnEvents,
    timing: Timing,
    now: number,
  ) {
    this.session = session;
    this.ownSite = ownSite;
    this.since = now;
    this.#events = events;
    this.#over = new Promise((_, reject) => {
      this.#end = reject;
    });
    this.#over.catch(() => undefined);
    this.#relayed = configuration.iceTransportPolicy !== "relay";
    this.pc = new RTCPeerConnection(configuration);
    live++;
    const dc = this.pc.createDataChannel(channelLabel, {
      negotiated: true,
      id: 0,
      ordered: true,
      protocol: channelProtocol,
    });
    this.channel = new Channel(
      dc as RTCDataChannel & { send(data: Uint8Array<ArrayBuffer>): void },
      {
        open: () => {
          this.#opened = true;
          events.open();
        },
        message: events.message,
        fault: events.fault,
        closed: () => this.close(),
      },
      timing,
    );
    this.pc.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) this.#relayed = true; // where only relays are used it is one
      if (candidate || this.#relayed) events.candidate(candidateOf(candidate));
      else this.close(); // no server gave one
    };
    this.pc.oniceconnectionstatechange = () => {
      const state = this.pc.iceConnectionState;
      if (state === "failed" || state === "disconnected") events.lost();
      events.changed();
    };
    this.pc.onconnectionstatechange = () => events.changed();
    this.pc.onicegatheringstatechange = () => events.changed();
  }

  get remote(): RemoteEnd | undefined {
    return this.#remote;
  }

  /** The channel is open, or has been. */
  get opened(): boolean {
    return this.#opened;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get stage(): Stage {
    return this.#closed ? "closed" : this.#stage();
  }

  /** The stage at which it was when it was closed. */
  get lastStage(): Stage {
    return this.#closed ? this.#lastStage : this.#stage();
  }

  #stage(): Stage {
    if (this.channel.isOpen) return "open";
    if (!this.#relayed) return "relaying";
    if (!this.#remote) return this.pc.iceGatheringState === "gathering" ? "gathering" : "signaling";
    const ice = this.pc.iceConnectionState;
    if (ice !== "connected" && ice !== "completed") return "checking";
    return this.pc.connectionState === "connected" ? "opening" : "securing";
  }

  /** This side, as far as the role proof is concerned. Throws before there is a local description. */
  ownEnd(): End {
    return { fingerprint: fingerprint(this.pc.localDescription?.sdp ?? ""), nonce: this.nonce };
  }

  /**
   * Whether `sdp`, which came with `nonce` and `site`, belongs to the other side of this connection. The first one
   * decides who that is. Throws a FingerprintError.
   */
  belongs(sdp: string, nonce: Uint8Array<ArrayBuffer>, site: Uint8Array<ArrayBuffer>): boolean {
    const end = { fingerprint: fingerprint(sdp), nonce, site: toHex(site) };
    this.#remote ??= end;
    return (
      this.#remote.site === end.site &&
      toHex(this.#remote.nonce) === toHex(nonce) &&
      toHex(this.#remote.fingerprint) === toHex(end.fingerprint)
    );
  }

  /** Sets what the next ICE restart looks for addresses with: credentials of before may be over. */
  configure(configuration: RTCConfiguration): void {
    this.pc.setConfiguration(configuration);
  }

  /** Keeps what was sent as long as it may have to be sent again. */
  remember(d: Description): void {
    if (d.kind !== "candidate") this.sent.length = 0;
    if (this.sent.length < maxRepeated) this.sent.push(d);
  }

  /** The channel is not open yet, or its path is being replaced. */
  get unfinished(): boolean {
    return !this.#opened || this.offering || this.restartedAt > 0;
  }

  /**
   * Waits for an operation of `pc`: one that a close overtakes never settles by itself, as WebRTC has it. Here it is rejected,
   * with a ClosedError.
   */
  done<T>(operation: Promise<T>): Promise<T> {
    return Promise.race([this.#over, operation]);
  }

  /** Takes an address of the other side; null: there are no more. */
  async addCandidate(c: Candidate | null): Promise<void> {
    try {
      await this.done(this.pc.addIceCandidate(c ?? undefined));
    } catch {
      // An address that this browser cannot use is none: others follow.
    }
  }

  /** Ends it at once, and reports that. */
  close(): void {
    if (this.#closed) return;
    this.#lastStage = this.#stage();
    this.#closed = true;
    live--;
    this.pc.onicecandidate = null;
    this.pc.oniceconnectionstatechange = null;
    this.pc.onconnectionstatechange = null;
    this.pc.onicegatheringstatechange = null;
    this.channel.close();
    this.pc.close();
    this.#end(new ClosedError());
    queueMicrotask(() => this.#events.closed());
  }
}

function candidateOf(c: RTCIceCandidate | null): Candidate | null {
  if (!c || c.candidate === "") return null;
  return {
    candidate: c.candidate,
    sdpMid: c.sdpMid,
    sdpMLineIndex: c.sdpMLineIndex,
    usernameFragment: c.usernameFragment,
  };
}
