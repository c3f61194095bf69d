// Simulated peers and the connections between them: Go's pkg/mesh/meshtest. Nothing moves by itself: whoever holds a Network
// delivers messages, carries out reads and applies, and lets time pass.

import { createHash } from "node:crypto";
import { compareBytes } from "../../changeset/value.ts";
import { marshal, parse } from "../codec.ts";
import { Core } from "../core.ts";
import { asProtocolError, CodeSameSite, CodeStaleCopy, CodeSuperseded, codeName } from "../errors.ts";
import {
  type Changes,
  MaxSentence,
  type Message,
  ProofLen,
  SchemaHashLen,
  type TableSchema,
  TypeChanges,
} from "../message.ts";
import {
  type ApplyRequest,
  type ApplyResult,
  type Close,
  type LinkID,
  PruneTicks,
  type ReadRequest,
  type ReadResult,
  type SchemaRequest,
  type Send,
} from "../ops.ts";
import { EventSameSite, EventStaleCopy } from "../status.ts";
import { EntryEnd, type SiteID } from "../vector.ts";
import { applyText, eventText, messageText, readText, schemaRequestText } from "./log.ts";
import { ModelStore, type Write } from "./store.ts";

/** The site id of a peer that is named by a letter: that letter, 16 times, in hex. */
export function siteOf(name: string): SiteID {
  return name.charCodeAt(0).toString(16).padStart(2, "0").repeat(16);
}

/** An open connection of two peers. */
export interface Conn {
  readonly ends: readonly [Peer, Peer];
  readonly ids: [LinkID, LinkID];
  /** The messages under way, marshalled: [0] from ends[0] to ends[1]. */
  readonly queues: readonly [Uint8Array[], Uint8Array[]];
  /** The last local version that ends[i]'s walk for the other end has come to. */
  readonly walked: [number, number];
  /** That end closes once its queue is empty. */
  readonly closing: [boolean, boolean];
  /** settle delivers nothing. */
  stalled?: boolean;
}

export type End = 0 | 1;

export const otherEnd = (i: End): End => (i === 0 ? 1 : 0);

/** A core with its store, and what the driver would hold: requests that are not answered yet. */
export class Peer {
  readonly name: string;
  store: ModelStore;
  readonly writer: boolean;
  core!: Core;
  lastLink = 0;
  reads: { request: ReadRequest; result: ReadResult | undefined }[] = [];
  apply: { request: ApplyRequest; result: ApplyResult | undefined } | undefined;
  /** A commit that the core does not know of. */
  committed = false;
  /** Somebody says that its site's numbers are in use elsewhere. */
  disputed = false;
  schemas: SchemaRequest[] = [];
  readonly #tables = new Map<string, string>();
  #generation = 0;
  readonly #net: Network;
  #starts = 0;

  constructor(net: Network, name: string, writer: boolean) {
    this.#net = net;
    this.name = name;
    this.writer = writer;
    this.store = new ModelStore(siteOf(name));
    this.start();
  }

  /** Makes a core from what the store holds. */
  start(): void {
    const { site, own, newest, vector } = this.store;
    this.#starts++;
    this.core = new Core({
      site,
      writer: this.writer,
      own,
      newest,
      vector: new Map(vector),
      schemaHash: this.#hash(),
      seed: BigInt(this.#starts * 256 + this.name.charCodeAt(0)),
      maxMessage: 0,
    });
    this.reads = [];
    this.apply = undefined;
    this.committed = false;
    this.disputed = false;
    this.schemas = [];
    this.#told();
  }

  /** Writes one transaction. The core learns of it by `notify`. */
  commit(writes: readonly Write[]): void {
    this.store.commit(writes);
    this.committed = true;
  }

  /** Tells the core of commits. Whether there was one to tell of. */
  notify(): boolean {
    if (!this.committed) return false;
    this.committed = false;
    this.core.committed(this.store.own, this.store.newest);
    return true;
  }

  /** How many reads, and then applies, wait. */
  get pending(): number {
    return this.reads.length + (this.apply ? 1 : 0);
  }

  /** Lets the store do request number i of `pending`, unless it has. */
  carryOut(i: number): void {
    const read = this.reads[i];
    if (read) {
      const { chunk } = this.#net;
      const maxChanges = chunk > 0 ? Math.min(read.request.maxChanges, chunk) : read.request.maxChanges;
      if (read.result) return;
      read.result = this.store.read({ ...read.request, maxChanges });
      this.#net.count(this, read.request, read.result);
    } else if (this.apply) {
      const { request } = this.apply;
      this.apply.result ??= this.store.apply(this.#net.mutateApply?.(this, request) ?? request);
    }
  }

  /** Gives the core the result of request number i of `pending`, carrying it out first if need be. */
  answer(i: number): void {
    this.carryOut(i);
    const [read] = this.reads.splice(i, 1);
    if (read?.result) {
      const at = this.#net.end(this, read.request.link);
      const { next } = read.result;
      if (at && read.request.only === undefined) {
        at.conn.walked[at.i] = next.seq === EntryEnd ? next.l : next.l - 1;
      }
      this.core.readDone(read.result);
    } else if (this.apply?.result) {
      const { result } = this.apply;
      this.apply = undefined;
      this.core.applied(result);
    }
  }

  /** Gives the peer a table of its own. */
  createTable(name: string, sql: string): void {
    if (this.#add(name, sql)) this.#told();
  }

  /** Counts what was made of the peer's tables as a migration on purpose: its schema is a newer one. */
  migrate(generation: number): void {
    this.#generation = generation;
    this.#told();
  }

  #told(): void {
    this.core.schemaChanged(this.#hash(), this.#generation, this.#list());
  }

  /** Carries out the core's schema requests. Whether there were any. */
  createTables(): boolean {
    const requests = this.schemas;
    this.schemas = [];
    for (const r of requests) {
      const added = r.tables.filter((t) => this.#add(t.name, t.sql));
      const older = this.#generation < r.generation && compareBytes(this.#hash(), r.hash) === 0;
      if (older) this.#generation = r.generation;
      if (older || added.length > 0) this.#told();
      this.core.schemaApplied(r.link);
    }
    return requests.length > 0;
  }

  #add(name: string, sql: string): boolean {
    if (this.#tables.has(name)) return false;
    this.#tables.set(name, sql);
    return true;
  }

  #list(): TableSchema[] {
    return [...this.#tables]
      .map(([name, sql]) => ({ name, sql, columns: [] }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #hash(): Uint8Array {
    if (this.#tables.size === 0) return new Uint8Array(SchemaHashLen);
    const hash = createHash("sha256");
    for (const { name, sql } of this.#list()) hash.update(`${name}\0${sql}\n`);
    return new Uint8Array(hash.digest());
  }
}

export class Network {
  readonly peers: Peer[] = [];
  /** In order of opening. */
  conns: Conn[] = [];
  /** Makes the sender of a changes message a broken one. */
  mutate: ((c: Conn, p: Peer, m: Changes) => Changes) | undefined;
  /** Makes a store a broken one, by what it is asked to apply. */
  mutateApply: ((p: Peer, r: ApplyRequest) => ApplyRequest) | undefined;
  /** The most changes that a Read returns; 0: as many as the core asks for. */
  chunk = 0;
  /** Stores may be copies of others, so that links may be refused for it. */
  copies = false;
  /** The errors for which cores closed links, save superseded. */
  readonly errors: string[] = [];
  /** How many were sent. */
  messages = 0;
  /** Reads that ended in the midst of a walk, entries that were held back, walks that began where an earlier link's had ended. */
  readonly tally = { chunks: 0, held: 0, resumed: 0 };
  /** Gets a line for each thing that a core wants done. */
  log: (line: string) => void = () => {};

  add(name: string, writer: boolean): Peer {
    const p = new Peer(this, name, writer);
    this.peers.push(p);
    return p;
  }

  /** Ends a peer's core and its connections, and starts it anew from its store, which may be changed meanwhile. */
  crash(p: Peer, meanwhile: () => void = () => {}): void {
    this.cutUnless((a, b) => a !== p && b !== p);
    meanwhile();
    p.start();
  }

  /** Breaks the connections of those who may not meet. */
  cutUnless(may: (a: Peer, b: Peer) => boolean): void {
    for (const c of [...this.conns]) if (!may(...c.ends)) this.cut(c);
  }

  /** Takes a peer out of the network, with its connections. */
  remove(p: Peer): void {
    this.cutUnless((a, b) => a !== p && b !== p);
    this.peers.splice(this.peers.indexOf(p), 1);
  }

  find(a: Peer, b: Peer): Conn | undefined {
    return this.conns.find((c) => c.ends.includes(a) && c.ends.includes(b));
  }

  /** Opens a connection between two peers that have none. */
  connect(a: Peer, b: Peer): Conn {
    const ids: [LinkID, LinkID] = [++a.lastLink, ++b.lastLink];
    const c: Conn = { ends: [a, b], ids, queues: [[], []], walked: [0, 0], closing: [false, false] };
    this.conns.push(c);
    for (const i of [0, 1] as const) {
      const p = c.ends[i];
      const remote = c.ends[otherEnd(i)].store.site;
      const proof = new Uint8Array(p.writer ? ProofLen : 0);
      p.core.open(c.ids[i], { remote, proof, resume: p.store.resume.get(remote) ?? 0 });
      this.pump(p);
    }
    return c;
  }

  /** Breaks a connection. What is under way is lost. */
  cut(c: Conn): void {
    if (!this.conns.includes(c)) return;
    this.conns = this.conns.filter((other) => other !== c);
    for (const i of [0, 1] as const) c.ends[i].core.close(c.ids[i]);
  }

  /** The connection of a peer's link, and which end of it the peer is; undefined if it is gone. */
  end(p: Peer, id: LinkID): { conn: Conn; i: End } | undefined {
    for (const conn of this.conns) {
      for (const i of [0, 1] as const) if (conn.ends[i] === p && conn.ids[i] === id) return { conn, i };
    }
    return undefined;
  }

  /** Hands the next message from ends[from] to the other end. Whether there was one. */
  deliver(c: Conn, from: End): boolean {
    const b = c.queues[from].shift();
    if (!b) return false;
    const to = otherEnd(from);
    let m: Message | undefined;
    try {
      m = parse(b);
    } catch (error) {
      this.errors.push(`${c.ends[from].name} sent what does not parse: ${error}`);
      c.ends[to].core.refuse(c.ids[to], asProtocolError(error, MaxSentence));
    }
    if (m) c.ends[to].core.step(c.ids[to], m);
    if (c.closing[from] && c.queues[from].length === 0) this.cut(c);
    return true;
  }

  /** Does what a peer's core wants done; reads and applies wait for `carryOut` and `answer`. */
  pump(p: Peer): void {
    for (;;) {
      const r = p.core.ready();
      for (const s of r.sends) this.#send(p, s);
      for (const request of r.reads) {
        const at = this.end(p, request.link);
        if (at) this.log(readText(p.name, at.conn.ends[otherEnd(at.i)].name, request));
        p.reads.push({ request, result: undefined });
      }
      if (r.apply) {
        this.log(applyText(p.name, r.apply));
        p.apply = { request: r.apply, result: undefined };
      }
      for (const request of r.schemas) {
        this.log(schemaRequestText(p.name, request));
        p.schemas.push(request);
      }
      for (const event of r.events) {
        this.log(eventText(p.name, event));
        p.disputed ||= event.kind === EventStaleCopy || event.kind === EventSameSite;
      }
      for (const request of r.closes) this.#close(p, request);
      const { sends, reads, schemas, closes, events } = r;
      const n = sends.length + reads.length + schemas.length + closes.length + events.length;
      if (n === 0 && !r.apply) return;
    }
  }

  #send(p: Peer, s: Send): void {
    const at = this.end(p, s.link);
    if (!at || at.conn.closing[at.i]) return;
    let m = s.message;
    if (m.type === TypeChanges && this.mutate) m = this.mutate(at.conn, p, m);
    this.log(`${p.name}->${at.conn.ends[otherEnd(at.i)].name} ${messageText(m)}`);
    at.conn.queues[at.i].push(marshal(m));
    this.messages++;
  }

  #close(p: Peer, { link, error }: Close): void {
    const copied = error?.code === CodeStaleCopy || error?.code === CodeSameSite;
    if (error && error.code !== CodeSuperseded && !(copied && this.copies)) {
      this.errors.push(`${p.name} closed a link: ${error.message}`);
    }
    const at = this.end(p, link);
    if (!at) {
      p.core.close(link);
      return;
    }
    const other = at.conn.ends[otherEnd(at.i)].name;
    this.log(`${p.name} closes ${other}${error ? `: ${codeName(error.code)}` : ""}`);
    at.conn.closing[at.i] = true;
    if (at.conn.queues[at.i].length === 0) this.cut(at.conn);
  }

  /** Counts what a read came to. */
  count(p: Peer, request: ReadRequest, result: ReadResult): void {
    if (request.only) return;
    if (!result.end) this.tally.chunks++;
    this.tally.held += result.entries.filter((e) => e.held).length;
    const at = this.end(p, request.link);
    if (at && at.conn.walked[at.i] === 0 && request.after.l > 0) this.tally.resumed++;
  }

  /** Lets two peers say all to each other, as if nobody else were there. */
  converse(a: Peer, b: Peer): void {
    for (let n = 2 * PruneTicks; n > 0; n--) {
      this.settle([a, b]);
      for (const p of [a, b]) {
        p.core.tick();
        this.pump(p);
      }
    }
  }

  /** Answers everything and delivers all messages among peers until nothing moves, without letting time pass. */
  settle(peers: readonly Peer[] = this.peers): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const p of peers) {
        moved = p.createTables() || moved;
        moved = p.notify() || moved;
        this.pump(p);
        while (p.pending > 0) {
          p.answer(0);
          this.pump(p);
          moved = true;
        }
      }
      for (const c of [...this.conns]) {
        if (peers !== this.peers && !c.ends.every((p) => peers.includes(p))) continue;
        for (const from of [0, 1] as const) while (!c.stalled && this.deliver(c, from)) moved = true;
      }
    }
  }

  /** Lets one tick pass at every peer. */
  tick(): void {
    for (const p of this.peers) {
      p.core.tick();
      this.pump(p);
    }
  }

  /** Settles and ticks until `quiet` ticks have passed without a message. Whether that took at most `limit` ticks. */
  run(quiet: number, limit: number): boolean {
    let still = 0;
    for (let ticks = 0; ticks < limit; ticks++) {
      const before = this.messages;
      this.settle();
      this.tick();
      this.settle();
      still = this.messages === before ? still + 1 : 0;
      if (still >= quiet) return true;
    }
    return false;
  }
}
