// What the parts of the core share.

import type { ProtocolError } from "./errors.ts";
import type { Applying } from "./inbox.ts";
import { type Link, newLink, pass, updateNeighbours } from "./link.ts";
import { type Message, type TableSchema, TypeErrorMessage } from "./message.ts";
import type {
  ApplyRequest,
  Close,
  Config,
  LinkID,
  LookRequest,
  ReadRequest,
  Ready,
  SchemaRequest,
  Send,
} from "./ops.ts";
import type { Seen } from "./prune.ts";
import { Units, type WaitingSpan } from "./span.ts";
import type { Counters, Event } from "./status.ts";
import { covers, maxOf, type SiteID, since, type Vector, without, withVersion } from "./vector.ts";
import { type Looks, newLooks } from "./verify.ts";

/** A Ready that is being filled. */
export interface Pending {
  readonly sends: Send[];
  readonly reads: ReadRequest[];
  apply: ApplyRequest | undefined;
  readonly schemas: SchemaRequest[];
  look: LookRequest | undefined;
  readonly closes: Close[];
  readonly events: Event[];
}

function newPending(): Pending {
  return { sends: [], reads: [], apply: undefined, schemas: [], look: undefined, closes: [], events: [] };
}

/** The state of a core. Its parts, functions on it, are in the files beside this one: walk.ts, inbox.ts, span.ts and so on. */
export class CoreState {
  readonly cfg: Config;
  /** Ticks since the start. */
  now = 0;
  #rnd: number; // state of the jitter's generator, 32 bits

  own: number;
  newest: number;
  /** Own entry included; never modified, replaced. */
  vector: Vector;
  /** Counts the changes of vector. */
  gen = 0;
  /** Counts those of its foreign entries. */
  foreignGen = 0;

  readonly links = new Map<LinkID, Link>();
  /** Of links, ascending. */
  readonly order: LinkID[] = [];

  /** The reached that a site has acknowledged, on links that ended. */
  readonly passed = new Map<SiteID, number>();

  /** Sites of the live links, ascending; never modified, replaced. */
  neighbours: readonly SiteID[] = [];
  neighboursGen = 0;

  /** Ids given to reads and applies. */
  reads = 0;
  applies = 0;
  applying: Applying | undefined;
  /** Whose message was taken last for an apply. */
  turn: LinkID = 0;
  /** gen at which the claims queues were last looked through. */
  resolved = 0;

  /** Taken, waiting for what they depend on; oldest first. */
  spans: WaitingSpan[] = [];
  readonly units = new Units();
  /** The latest local versions that an Apply used, without a gap. */
  foreignRun = { from: 0, to: 0 };
  readonly seen = new Map<SiteID, Seen>();

  /** The link that we catch up from; 0: none. */
  feeder: LinkID = 0;

  schemaHash: Uint8Array;
  schemaTables: readonly TableSchema[] = [];
  schemaGiven = false;
  schemaGeneration = 0;

  readonly looks: Looks = newLooks();

  readonly counters: Counters = {
    messages: 0,
    groups: 0,
    changes: 0,
    changed: 0,
    redundant: 0,
    parked: 0,
    tooLarge: 0,
  };
  pending: Pending = newPending();

  constructor(cfg: Config) {
    this.cfg = cfg;
    this.#rnd = Number(BigInt.asUintN(32, cfg.seed ^ (cfg.seed >> 32n)));
    this.own = cfg.own;
    this.newest = cfg.newest;
    this.vector = withVersion(without(cfg.vector, cfg.site), cfg.site, cfg.own);
    this.schemaHash = cfg.schemaHash;
  }

  /** The link that `order` names. */
  link(id: LinkID): Link {
    return this.links.get(id) as Link;
  }

  /** The link if it is open and no close was asked for. */
  open(id: LinkID): Link | undefined {
    const l = this.links.get(id);
    return l && !l.closing ? l : undefined;
  }

  send(l: Link, message: Message): void {
    this.pending.sends.push({ link: l.id, message });
  }

  event(l: Link, e: Omit<Event, "link" | "remote">): void {
    this.pending.events.push({ ...e, link: l.id, remote: l.remote });
  }

  /** Takes over what the store has, and foreign entries of the vector that it has stored. */
  advance(own: number, newest: number, foreign: Vector): void {
    this.own = Math.max(this.own, own);
    this.newest = Math.max(this.newest, newest);
    let v = maxOf(this.vector, foreign);
    for (const [site, version] of foreign) {
      if ((this.seen.get(site)?.version ?? 0) <= version) this.seen.delete(site);
    }
    const foreignRose = since(v, this.vector).size > 0;
    v = withVersion(v, this.cfg.site, this.own);
    if (foreignRose) this.foreignGen++;
    if (foreignRose || !covers(this.vector, this.cfg.site, v.get(this.cfg.site) ?? 0)) {
      this.gen++;
      this.vector = v;
    }
  }

  /** Reports `error` to the other side and ends the link. */
  fail(l: Link, error: ProtocolError): void {
    if (l.closing) return;
    this.send(l, { type: TypeErrorMessage, code: error.code, sentence: error.sentence });
    this.shut(l, error);
  }

  /** Ends the link: what it had queued goes, and the driver is asked to close it. */
  shut(l: Link, error: ProtocolError | undefined): void {
    pass(this, l);
    const closed = newLink(this.cfg.site, l.id, { remote: l.remote, proof: new Uint8Array(0), resume: 0 });
    closed.closing = true;
    this.links.set(l.id, closed);
    l.closing = true;
    this.pending.closes.push({ link: l.id, error });
    updateNeighbours(this);
  }

  /** Takes what is to be done. */
  take(): Ready {
    const r = this.pending;
    this.pending = newPending();
    return r;
  }

  /** 1 to n. A linear congruential generator is enough to keep peers from answering in step. */
  jitter(n: number): number {
    this.#rnd = (Math.imul(this.#rnd, 1664525) + 1013904223) >>> 0;
    return 1 + ((this.#rnd >>> 16) % n);
  }
}
