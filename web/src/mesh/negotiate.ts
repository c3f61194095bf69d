// How two members come to a link and keep it: docs/SIGNALING.md, "Who offers" and "Attempts and restarts".

import { fromHex, type SiteID } from "../changeset/change.ts";
import type { Candidate, Description } from "../signaling/description.ts";
import { comparePeers, type PeerID } from "../signaling/id.ts";
import { MaxSession } from "../signaling/limits.ts";
import type { ProtocolError } from "../syncproto/errors.ts";
import type { Health } from "./channel.ts";
import { ClosedError, Conn, type Stage } from "./conn.ts";
import { backoff, type Timing } from "./timing.ts";

/** Candidates that are kept until the description of their session is there. */
const maxKept = 128;
/** Descriptions that may wait for their turn. A member that sends more is not in its right mind. */
const maxWaiting = 256;

/** What a negotiation is made of. */
export interface NegotiateOptions {
  readonly own: PeerID;
  readonly peer: PeerID;
  /** This side's site now, see `renamed`. */
  site(): SiteID;
  readonly timing: Timing;
  /** What addresses are looked for with now: ICE servers, and whether relays only. */
  configuration(): RTCConfiguration;
  /** Passes a description on, in order. What cannot be passed on now is lost; `repeat` is called when it may be again. */
  send(d: Description): void;
  /** Whether a description would be passed on. */
  reachable(): boolean;
  readonly events: NegotiateEvents;
  readonly random?: () => number;
  /** The numbers of an earlier negotiation with the same peer, so that an old offer stays an old one. */
  readonly sessions?: Sessions | undefined;
}

/** The highest session numbers: seen or used, and offered by the other side. */
export interface Sessions {
  readonly highest: number;
  readonly offered: number;
}

/** What a negotiation reports, never from within a call into it. */
export interface NegotiateEvents {
  /** The channel of `conn` is open. */
  open(conn: Conn): void;
  message(conn: Conn, bytes: Uint8Array<ArrayBuffer>): void;
  /** The other side broke the protocol; the owner sends an error and calls `refuse`. */
  fault(conn: Conn, error: ProtocolError): void;
  /** `conn`, which was open, is gone. */
  closed(conn: Conn): void;
  changed(): void;
}

/** Keeps one link to one other member, for as long as that is a member. */
export class Negotiation {
  readonly #o: NegotiateOptions;
  readonly #impolite: boolean;
  #conn: Conn | undefined;
  #former: Conn | undefined; // the one of before the last `renamed`
  #highest = 0; // session number seen or used
  #highestOffered = 0; // by the other side
  #ended = 0; // the latest session that is over
  #hurriedAfter = 0; // the latest session that was over and offered again
  #kept: { session: number; candidates: (Candidate | null)[] } = { session: 0, candidates: [] };
  #dueAt = Number.POSITIVE_INFINITY; // when to offer (impolite) or to want (polite), ms
  #patientUntil = 0; // the link was closed on purpose: not before then, ms
  #failures = 0;
  #health: Health = "good";
  #failedAt: Stage | undefined;
  #tasks: Promise<void> = Promise.resolve(); // one step of negotiation at a time
  #waiting = 0;
  #closed = false;

  constructor(options: NegotiateOptions) {
    this.#o = options;
    this.#impolite = comparePeers(options.own, options.peer) > 0;
    this.#highest = options.sessions?.highest ?? 0;
    this.#highestOffered = options.sessions?.offered ?? 0;
  }

  get conn(): Conn | undefined {
    return this.#conn;
  }

  get sessions(): Sessions {
    return { highest: this.#highest, offered: this.#highestOffered };
  }

  /** How the open channel is doing. */
  get health(): Health {
    return this.#health;
  }

  /** The stage at which the last attempt failed; undefined once a channel has opened. */
  get failedAt(): Stage | undefined {
    return this.#failedAt;
  }

  /** Starts: the greater id offers at once; the other waits, or asks at once if `hurried`: the other side does not know of it. */
  start(hurried = false): void {
    this.#dueAt = performance.now() + (this.#impolite || hurried ? 0 : this.#o.timing.want);
    this.beat();
  }

  /** Takes a description from the other side. */
  receive(d: Description): void {
    if (this.#waiting >= maxWaiting) return;
    this.#waiting++;
    this.#run(async () => {
      this.#waiting--;
      await this.#take(d);
    });
  }

  /** To be called every `timing.beat`. */
  beat(): void {
    if (this.#closed) return;
    const now = performance.now();
    const conn = this.#conn;
    if (!conn) {
      if (now >= this.#dueAt) this.#begin(now);
    } else if (conn.opened) {
      this.#watch(conn, now);
    } else if (now - conn.since > this.#o.timing.attempt) {
      this.#failed(conn);
    }
  }

  /**
   * The page woke up, the network changed (`moved`), or the signaling server is back: looks at once whether the link lives,
   * and begins what waits for its time.
   */
  wake(moved: boolean): void {
    const now = performance.now();
    const conn = this.#conn;
    if (moved) this.#failures = 0;
    if (conn?.opened) {
      conn.probedAt = now;
      conn.channel.probe(now);
    } else if (!conn) {
      this.#hurry(now);
    } else if (moved && conn.remote && !conn.offering) {
      this.#restart(conn); // what was announced may be gone, and what is new is not announced
    } else if (moved) {
      this.#forget(conn, now);
    }
  }

  /** There is a new way to the other side, and what was sent before may be lost: sends again what an attempt needs. */
  repeat(): void {
    const conn = this.#conn;
    if (conn) this.#sendAgain(conn);
    else if (this.#failures > 0 || !this.#impolite) this.#hurry(performance.now());
  }

  #hurry(now: number): void {
    this.#dueAt = Math.min(this.#dueAt, Math.max(now, this.#patientUntil));
  }

  #sendAgain(conn: Conn): void {
    if (conn.unfinished) for (const d of conn.sent) this.#o.send(d);
  }

  /** Sends what is queued and closes the link; tries again only after `timing.refused`, or at once if this side was renamed. */
  async refuse(conn: Conn): Promise<void> {
    await conn.channel.flushAndClose();
    if (conn === this.#conn) {
      if (conn === this.#former) this.#forget(conn, 0);
      else this.#leave(conn);
    }
    conn.close();
  }

  /** This side goes on under a new name: what there is under the old one ends, and is begun anew at once. */
  renamed(): void {
    const conn = this.#conn;
    this.#former = conn;
    this.#failures = 0;
    this.#patientUntil = 0;
    if (conn?.opened) {
      void this.refuse(conn);
      return;
    }
    if (conn) {
      this.#o.send({ kind: "bye", session: conn.session });
      this.#forget(conn, 0);
    }
    this.#dueAt = 0;
  }

  /** Ends it for good. */
  close(): void {
    this.#closed = true;
    this.#conn?.close();
    this.#conn = undefined;
  }

  #begin(now: number): void {
    this.#dueAt = now + this.#o.timing.want;
    if (!this.#impolite) {
      this.#o.send({ kind: "want", session: this.#nextSession() });
      return;
    }
    this.#run(() => this.#offer());
  }

  async #offer(): Promise<void> {
    if (this.#conn) return;
    const conn = this.#connect(this.#nextSession());
    conn.offering = true;
    await conn.done(conn.pc.setLocalDescription());
    this.#describe(conn, "offer");
  }

  async #take(d: Description): Promise<void> {
    this.#highest = Math.max(this.#highest, d.session);
    switch (d.kind) {
      case "offer":
        await this.#takeOffer(d);
        break;
      case "answer":
        await this.#takeAnswer(d);
        break;
      case "candidate":
        await this.#takeCandidate(d.session, d.candidate);
        break;
      case "want":
        this.#takeWant(d.session);
        break;
      case "bye":
        if (this.#conn?.session !== d.session) break;
        if (this.#conn.opened) this.#leave(this.#conn);
        else this.#forget(this.#conn, performance.now() + this.#o.timing.want); // not wanted there; it may be here
    }
  }

  async #takeOffer(d: Description & { kind: "offer" | "answer" }): Promise<void> {
    let conn = this.#conn;
    if (conn?.remote && conn.session === d.session) {
      if (conn.lastOffer === d.sdp) {
        this.#sendAgain(conn); // what answered it may be lost, too
        return;
      }
      // An ICE restart. When two cross, the polite side's own is rolled back by setRemoteDescription.
      if (!conn.belongs(d.sdp, d.nonce, d.site)) return;
      if (conn.offering && this.#impolite) {
        this.#sendAgain(conn); // ours, which may be lost: then neither would be answered
        return;
      }
      conn.configure(this.#o.configuration());
    } else {
      if (d.session === this.#ended) {
        // It restarts what is over here: the other side does not know. Once, for what we do then may make it repeat the offer.
        if (this.#hurriedAfter !== d.session && !conn) this.#hurry(performance.now());
        this.#hurriedAfter = d.session;
        return;
      }
      if (d.session <= this.#highestOffered) return;
      if (conn && !conn.remote && conn.offering && this.#impolite) {
        this.#sendAgain(conn); // ours, which may be lost
        return;
      }
      this.#highestOffered = d.session;
      // There may be no other: the browser refuses a connection too many.
      if (conn) this.#forget(conn, performance.now() + this.#o.timing.want);
      conn = this.#connect(d.session);
      conn.belongs(d.sdp, d.nonce, d.site);
    }
    conn.offering = false;
    conn.lastOffer = d.sdp;
    await conn.done(conn.pc.setRemoteDescription({ type: "offer", sdp: d.sdp }));
    await this.#addKept(conn);
    await conn.done(conn.pc.setLocalDescription());
    this.#describe(conn, "answer");
  }

  async #takeAnswer(d: Description & { kind: "offer" | "answer" }): Promise<void> {
    const conn = this.#conn;
    if (!conn?.offering || conn.session !== d.session || !conn.belongs(d.sdp, d.nonce, d.site)) return;
    conn.offering = false;
    await conn.done(conn.pc.setRemoteDescription({ type: "answer", sdp: d.sdp }));
    await this.#addKept(conn);
  }

  async #takeCandidate(session: number, c: Candidate | null): Promise<void> {
    const conn = this.#conn;
    if (conn?.session === session && conn.pc.remoteDescription) {
      await conn.addCandidate(c);
      return;
    }
    if (session < (conn?.session ?? 0) || session < this.#kept.session) return;
    if (session > this.#kept.session) this.#kept = { session, candidates: [] };
    if (this.#kept.candidates.length < maxKept) this.#kept.candidates.push(c);
  }

  #takeWant(session: number): void {
    if (!this.#impolite) return;
    const conn = this.#conn;
    if (conn && !conn.remote) {
      this.#sendAgain(conn); // it has none: the offer may be lost, or comes twice, which does no harm
      return;
    }
    if (conn && session <= conn.session) return; // it may have asked before it saw the offer
    // The other side has lost what it had answered.
    if (conn) this.#forget(conn, 0);
    this.#dueAt = 0;
    this.beat();
  }

  async #addKept(conn: Conn): Promise<void> {
    if (this.#kept.session !== conn.session) return;
    const { candidates } = this.#kept;
    this.#kept = { session: conn.session, candidates: [] };
    for (const c of candidates) await conn.addCandidate(c);
  }

  // Looks after an open link.
  #watch(conn: Conn, now: number): void {
    const { timing } = this.#o;
    const health = conn.channel.beat(now);
    if (health !== this.#health) {
      this.#health = health;
      this.#o.events.changed();
    }
    if (conn.restartedAt > 0 && health === "good" && conn.channel.heard) conn.restartedAt = 0;
    // A restart that began before the network changed is of no use.
    const stale =
      conn.restartedAt < conn.probedAt && now - conn.probedAt > timing.probe && !conn.channel.heard;
    const hopeless = conn.restartedAt > 0 && (stale || now - conn.restartedAt > timing.restart);
    if (health === "dead" || hopeless) {
      this.#forget(conn, 0);
      this.beat();
    } else if (health === "suspect") {
      this.#restart(conn);
    }
  }

  // While nobody could pass the offer on, the old path may yet come back.
  #restart(conn: Conn): void {
    if (conn.restartedAt > 0 || conn !== this.#conn || !this.#o.reachable()) return;
    conn.restartedAt = performance.now();
    this.#run(async () => {
      if (conn !== this.#conn || conn.offering || conn.pc.signalingState !== "stable") return;
      conn.configure(this.#o.configuration());
      const offer = await conn.done(conn.pc.createOffer({ iceRestart: true }));
      conn.offering = true;
      await conn.done(conn.pc.setLocalDescription(offer));
      this.#describe(conn, "offer");
    });
  }

  #connect(session: number): Conn {
    this.#highest = Math.max(this.#highest, session);
    const { events, timing } = this.#o;
    const current = () => conn === this.#conn && !this.#closed;
    const conn: Conn = new Conn(
      session,
      this.#o.site(),
      this.#o.configuration(),
      {
        candidate: (candidate) => {
          if (current()) this.#say(conn, { kind: "candidate", session, candidate });
        },
        open: () => {
          if (!current()) return;
          this.#failures = 0;
          this.#failedAt = undefined;
          this.#health = "good";
          events.open(conn);
        },
        message: (bytes) => current() && events.message(conn, bytes),
        fault: (error) => current() && events.fault(conn, error),
        lost: () => this.#lost(conn),
        changed: () => current() && events.changed(),
        closed: () => {
          if (current()) this.#failed(conn);
          if (conn.opened) events.closed(conn);
          events.changed();
        },
      },
      timing,
      performance.now(),
    );
    this.#conn = conn;
    events.changed();
    return conn;
  }

  // ICE says that the path is gone: an open link is repaired, an attempt is over.
  #lost(conn: Conn): void {
    if (conn.opened) {
      conn.channel.probe(performance.now());
      this.#restart(conn);
    } else if (conn === this.#conn && conn.pc.iceConnectionState === "failed") {
      this.#failed(conn);
    }
  }

  #failed(conn: Conn): void {
    if (!conn.opened) this.#failedAt = conn.lastStage;
    const wait = conn.opened ? 0 : backoff(this.#o.timing, this.#failures++, this.#o.random ?? Math.random);
    this.#forget(conn, performance.now() + wait);
  }

  // Closes a connection on purpose.
  #leave(conn: Conn): void {
    this.#patientUntil = performance.now() + this.#o.timing.refused;
    this.#forget(conn, this.#patientUntil);
  }

  // Closes a connection, and says when to begin anew.
  #forget(conn: Conn, dueAt: number): void {
    this.#ended = conn.session;
    if (conn === this.#conn) {
      this.#conn = undefined;
      this.#dueAt = dueAt;
    }
    conn.close();
  }

  #describe(conn: Conn, kind: "offer" | "answer"): void {
    const sdp = conn.pc.localDescription?.sdp;
    if (conn !== this.#conn || !sdp) return;
    this.#say(conn, { kind, session: conn.session, sdp, nonce: conn.nonce, site: fromHex(conn.ownSite) });
  }

  #say(conn: Conn, d: Description): void {
    conn.remember(d);
    this.#o.send(d);
  }

  // A side that has forgotten its numbers starts above them, thanks to the clock.
  #nextSession(): number {
    this.#highest = Math.min(Math.max(this.#highest + 1, Date.now()), MaxSession);
    return this.#highest;
  }

  // Runs one step after the other. A step that fails ends the attempt that it was about.
  #run(step: () => Promise<void>): void {
    this.#tasks = this.#tasks.then(async () => {
      if (this.#closed) return;
      try {
        await step();
      } catch (error) {
        if (error instanceof ClosedError) return; // whoever closed it said what comes next
        const conn = this.#conn;
        if (conn && !conn.opened) this.#failed(conn);
        else if (!conn) this.#failedAt = "signaling"; // the browser would not even begin
      }
    });
  }
}
