// The connection to the signaling server: joins a room, stays in it, and comes back after every kind of break.

import { encode64 } from "./base64.ts";
import { type Code, codeOfClose, sentenceOf } from "./codes.ts";
import type { PeerID, RoomID } from "./id.ts";
import { MaxClientFrame, MaxServerFrame, Subprotocol } from "./limits.ts";
import { type ICEServer, type Member, type Meta, marshalMessage, parseServerMessage } from "./messages.ts";
import { Roster } from "./roster.ts";
import { Takeovers } from "./takeover.ts";

/** Time between two pings, and how long nothing may arrive after one, in ms. */
const pingInterval = 15_000;
const pongTimeout = 10_000;
/** How long nothing may arrive after the page woke up or the network changed, in ms. */
const checkTimeout = 1_000;
/** Backoff before attempt n is random between 0 and min(backoffMax, backoffBase * 2^n), in ms. */
const backoffBase = 500;
const backoffMax = 15_000;
/** A connection that is not joined by then is given up, in ms. */
const joinTimeout = 10_000;
/** The share of the life of TURN credentials after which new ones are fetched. */
const renewShare = 0.8;
/** Random bytes of a resume token. Servers take 26 characters or more. */
const tokenLen = 24;
/** The longest wait that a server which stops may ask for, in ms. */
const maxMove = 60_000;
/** setTimeout takes no more, in ms. */
const maxTimeout = 2 ** 31 - 1;

/** Where the connection is. `stopped`: it will not be tried again. */
export type SignalState = "connecting" | "joined" | "waiting" | "stopped";

/** What the client reports. Calls come from its own event handlers, never from within a call into it. */
export interface SignalEvents {
  /** `error`: why the last connection ended, a clear sentence, or undefined while all is well. */
  state(state: SignalState, error: string | undefined): void;
  /** A member is new, or has new meta. */
  member(peer: PeerID, meta: Meta): void;
  /** A member is gone for good. */
  gone(peer: PeerID): void;
  /** Servers for new RTCPeerConnections. */
  iceServers(servers: readonly ICEServer[]): void;
  /** An envelope for this peer. */
  signal(from: PeerID, sealed: string): void;
  /** An envelope could not be passed on: `to` is not connected now. */
  unreachable(to: PeerID): void;
}

/** What a client is made of. */
export interface SignalOptions {
  /** WebSocket addresses, at least one: the next one after each failed attempt, the first one after a lost connection. */
  readonly urls: readonly string[];
  readonly room: RoomID;
  readonly peer: PeerID;
  readonly meta: Meta;
  /** The join token, for servers that ask for one. */
  readonly joinToken?: string | undefined;
  readonly events: SignalEvents;
  /** For tests: the WebSocket class, and a random number from 0 to 1. */
  readonly socket?: (url: string, protocol: string) => WebSocket;
  readonly random?: () => number;
}

/** Keeps one membership of one room. It belongs to a page or a worker with WebSockets; nothing here blocks. */
export class SignalClient {
  readonly #options: SignalOptions;
  readonly #roster: Roster;
  readonly #refused = new Set<string>(); // addresses that are no crmesh server
  #socket: WebSocket | undefined;
  #state: SignalState = "waiting";
  // At first one of ours, so that we can come back even when the answer to the first join is lost.
  #token = encode64(crypto.getRandomValues(new Uint8Array(tokenLen)));
  #attempt = 0; // since the last joined
  readonly #takeovers = new Takeovers();
  #next = 0; // index of the address to try
  #joined = false; // on this connection
  #retryAfter = 0; // ms, from the last error
  #code: Code | undefined; // of the last error frame on this connection
  #heard = 0; // when something arrived, ms
  #pingAt = 0; // when the unanswered ping went out, ms; 0: none
  #timer: ReturnType<typeof setTimeout> | undefined; // retry, or join timeout
  #renew: ReturnType<typeof setTimeout> | undefined; // a new connection although this one is well
  #moving = false; // the server of this connection has asked for that
  #check: ReturnType<typeof setTimeout> | undefined; // gives up a server that does not answer
  #began = 0; // when the attempt to connect began, ms
  #beat: ReturnType<typeof setInterval> | undefined;

  constructor(options: SignalOptions) {
    if (options.urls.length === 0) throw new Error("no signaling server is named; give at least one address");
    this.#options = options;
    this.#roster = new Roster(options.events);
  }

  /** Starts to connect. Once. */
  start(): void {
    this.#beat = setInterval(() => this.#tick(), 1000);
    this.#connect();
  }

  get state(): SignalState {
    return this.#state;
  }

  /** The other members. */
  members(): Iterable<Member> {
    return this.#roster.members();
  }

  /** Sends an envelope. False if the server is away: the caller tries again, or another way. */
  signal(to: PeerID, sealed: string): boolean {
    return this.#state === "joined" && this.#send(marshalMessage({ type: "signal", to, sealed }));
  }

  /**
   * The page woke up or the network changed: asks at once whether the server still lives, and ends a wait for the next
   * attempt.
   */
  wake(): void {
    if (this.#state === "waiting") {
      this.#attempt = 0;
      this.#connectFirst();
    } else if (this.#state === "connecting" && Date.now() - this.#began > checkTimeout) {
      this.#connectFirst(); // what went out on the old network will not be answered
    } else if (this.#state === "joined") {
      this.#ping();
      clearTimeout(this.#check);
      this.#check = setTimeout(() => {
        if (this.#pingAt === 0) return;
        this.#report("waiting", sentenceOf("idle"));
        this.#connectFirst();
      }, checkTimeout);
    }
  }

  /** Leaves the room at once and stops. */
  close(): void {
    this.#send(marshalMessage({ type: "leave" })); // the answer to a join may be under way
    this.#stop(undefined);
  }

  #connect(): void {
    if (this.#state === "stopped") return;
    this.#drop();
    const url = this.#pickURL();
    if (url === undefined) {
      this.#stop(sentenceOf("subprotocol"));
      return;
    }
    this.#code = undefined;
    this.#joined = false;
    this.#began = Date.now();
    this.#report("connecting", undefined);
    let socket: WebSocket;
    try {
      socket = this.#options.socket?.(url, Subprotocol) ?? new WebSocket(url, Subprotocol);
    } catch {
      this.#stop("the address of the signaling server is not a WebSocket address that this page may use");
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      const { room, peer, meta, joinToken: admission } = this.#options;
      this.#send(
        marshalMessage({
          type: "join",
          room,
          peer,
          token: this.#token,
          ...(admission !== undefined && { admission }),
          meta,
        }),
      );
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(url, event.code, event.reason);
    this.#timer = setTimeout(() => this.#retry(sentenceOf("idle")), joinTimeout);
  }

  #connectFirst(): void {
    this.#next = 0;
    this.#connect();
  }

  #pickURL(): string | undefined {
    const { urls } = this.#options;
    for (let i = 0; i < urls.length; i++, this.#next++) {
      const url = urls[this.#next % urls.length] as string;
      if (!this.#refused.has(url)) return url;
    }
    return undefined;
  }

  #receive(data: unknown): void {
    this.#heard = Date.now();
    this.#pingAt = 0;
    if (typeof data !== "string" || data.length > MaxServerFrame) {
      this.#retry("the signaling server sent something that is no message; trying again");
      return;
    }
    const { events } = this.#options;
    try {
      const m = parseServerMessage(data);
      switch (m?.type) {
        case "joined":
          clearTimeout(this.#timer);
          this.#joined = true;
          this.#attempt = 0;
          this.#moving = false;
          this.#retryAfter = 0;
          this.#token = m.token;
          this.#renewAfter(m.ttl);
          events.iceServers(m.iceServers);
          this.#report("joined", undefined);
          this.#roster.joined(
            m.members.filter((member) => member.peer !== this.#options.peer),
            Date.now(),
          );
          break;
        case "member-joined":
          if (m.peer !== this.#options.peer) this.#roster.present(m.peer, m.meta);
          break;
        case "member-left":
          this.#roster.left(m.peer);
          break;
        case "moving":
          this.#move(m.within);
          break;
        case "signal":
          events.signal(m.from, m.sealed);
          break;
        case "error":
          this.#error(m.code, m.retryAfter, m.peer);
      }
    } catch (error) {
      this.#retry((error as Error).message);
    }
  }

  #error(code: string, retryAfter: number, peer: PeerID | undefined): void {
    if (code === "unreachable") {
      if (peer !== undefined) this.#options.events.unreachable(peer);
      return;
    }
    this.#code = code as Code;
    this.#retryAfter = retryAfter * 1000;
  }

  #closed(url: string, close: number, reason: string): void {
    const code = this.#code ?? codeOfClose(close, reason);
    if (code === "replaced") {
      const { sentence, ceiling } = this.#takeovers.again(Date.now(), backoffBase);
      this.#retry(sentence, ceiling);
      return;
    }
    if (code === "subprotocol") this.#refused.add(url);
    this.#retry(sentenceOf(code ?? ""));
  }

  // `ceiling`: the longest wait, in ms, if it is not that of the attempt.
  #retry(error: string, ceiling = Math.min(backoffMax, backoffBase * 2 ** this.#attempt++)): void {
    if (this.#state === "stopped") return;
    this.#drop();
    this.#next = this.#joined ? 0 : this.#next + 1;
    const wait = Math.max(this.#retryAfter, (this.#options.random ?? Math.random)() * ceiling);
    this.#retryAfter = 0;
    this.#timer = setTimeout(() => this.#connect(), Math.min(wait, maxTimeout));
    this.#report("waiting", error);
  }

  #tick(): void {
    const now = Date.now();
    if (this.#state !== "joined") return;
    this.#roster.expire(now);
    if (this.#pingAt > 0 && now - this.#pingAt > pongTimeout) {
      this.#retry(sentenceOf("idle"));
    } else if (this.#pingAt === 0 && now - this.#heard > pingInterval) {
      this.#ping();
    }
  }

  #ping(): void {
    this.#pingAt = Date.now();
    this.#send(marshalMessage({ type: "ping" }));
  }

  #renewAfter(ttl: number): void {
    clearTimeout(this.#renew);
    if (ttl === 0) return;
    // At the same address, where the other members are: a join with the token takes the old connection's place unnoticed and brings new credentials.
    this.#renew = setTimeout(() => this.#connect(), Math.min(ttl * 1000 * renewShare, maxTimeout));
  }

  // The server stops soon, and its successor has the same address. A random wait, so that its successor does not get all clients at once.
  #move(within: number): void {
    if (this.#moving) return; // only the first counts, so that a server cannot put it off
    this.#moving = true;
    clearTimeout(this.#renew);
    const wait = (this.#options.random ?? Math.random)() * Math.min(within * 1000, maxMove);
    this.#renew = setTimeout(() => this.#connect(), wait);
  }

  #send(frame: string): boolean {
    if (this.#socket?.readyState !== 1 || frame.length > MaxClientFrame) return false;
    this.#socket.send(frame);
    return true;
  }

  // Forgets the socket, and closes it if it is still there.
  #drop(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#renew);
    clearTimeout(this.#check);
    this.#pingAt = 0;
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
  }

  #stop(error: string | undefined): void {
    if (this.#state === "stopped") return;
    clearInterval(this.#beat);
    this.#drop();
    this.#report("stopped", error);
  }

  #report(state: SignalState, error: string | undefined): void {
    this.#state = state;
    this.#options.events.state(state, error);
  }
}
