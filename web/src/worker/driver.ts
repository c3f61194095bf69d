// Drives the core of one database: what the core asks for is done with the store, and what comes of it goes back.

import { compareBytes } from "../changeset/value.ts";
import type { SqlValue } from "../client/values.ts";
import { fromValue, toValue } from "../client/values.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { Core } from "../syncproto/core.ts";
import { asProtocolError, ProtocolError } from "../syncproto/errors.ts";
import { MaxSentence } from "../syncproto/message.ts";
import {
  type ApplyRequest,
  type LinkID,
  type ReadRequest,
  type SchemaRequest,
  TickMillis,
} from "../syncproto/ops.ts";
import {
  type Event,
  EventParked,
  EventStaleCopy,
  EventTooLarge,
  EventVectorFull,
  type Status,
} from "../syncproto/status.ts";
import type { SiteID } from "../syncproto/vector.ts";
import type { ExecAnswer, QueryAnswer } from "./protocol.ts";
import type { State, Store } from "./store.ts";

/** Ticks between two pictures of the core, where something changed. */
const statusTicks = 5;
/** Ticks that are made up for at once after a pause of the Worker. */
const maxMissedTicks = 20;

/** What a driver tells its owner, also from within a call into it. */
export interface DriverEvents {
  send(link: LinkID, bytes: Uint8Array<ArrayBuffer>): void;
  closeLink(link: LinkID, reason: string | undefined): void;
  changed(tables: readonly string[]): void;
  status(status: Status): void;
  notice(sentence: string): void;
  /** The store failed, or the core did: nothing is done any more. Once. */
  failed(error: unknown): void;
}

/** Owns a core and its store. Everything it does it does in turn with the calls into it; no call blocks. */
export class Driver {
  readonly #store: Store;
  readonly #core: Core;
  readonly #writer: boolean;
  readonly #events: DriverEvents;
  readonly #resume: Map<SiteID, number>;
  readonly site: SiteID;
  #schemaHash: Uint8Array;
  #tables: readonly string[];
  #committing: Promise<void> | undefined; // looking at the store's heads
  #again = false; // and once more afterwards
  #dirty = true; // since the last status
  #ticks = 0;
  #stopped = false;

  private constructor(store: Store, state: State, writer: boolean, seed: bigint, events: DriverEvents) {
    this.#store = store;
    this.#writer = writer;
    this.#events = events;
    this.site = state.site;
    this.#resume = new Map(state.resume);
    this.#schemaHash = state.schemaHash;
    this.#tables = state.tables.map((t) => t.name);
    const { site, own, newest, vector, schemaHash } = state;
    this.#core = new Core({ site, writer, own, newest, vector, schemaHash, seed, maxMessage: 0 });
    this.#core.schemaChanged(schemaHash, state.tables);
  }

  /** Starts to drive a store, which it owns from now on. `seed`: 64 random bits. */
  static async start(store: Store, writer: boolean, seed: bigint, events: DriverEvents): Promise<Driver> {
    return new Driver(store, await store.state(), writer, seed, events);
  }

  /** The channel of a link is open. */
  open(link: LinkID, remote: SiteID, proof: Uint8Array): void {
    this.#do(() => this.#core.open(link, { remote, proof, resume: this.#resume.get(remote) ?? 0 }));
  }

  /** A message came in on a link. The driver owns its bytes. */
  message(link: LinkID, bytes: Uint8Array): void {
    this.#do(() => {
      try {
        this.#core.step(link, parse(bytes));
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.#core.refuse(link, error);
      }
    });
  }

  /** What came in on a link was against the protocol. */
  refuse(link: LinkID, code: number, sentence: string): void {
    this.#do(() => this.#core.refuse(link, new ProtocolError(code, sentence)));
  }

  /** A link is gone. */
  closed(link: LinkID): void {
    this.#do(() => this.#core.close(link));
  }

  /** `elapsed`: how many times TickMillis have passed since the last call. */
  tick(elapsed: number): void {
    const dirty = this.#dirty;
    this.#do(() => {
      this.#dirty = dirty; // the passing of time alone is no news; what the core wants done because of it is
      for (let i = Math.min(elapsed, maxMissedTicks); i > 0; i--) this.#core.tick();
    });
    if (++this.#ticks % statusTicks === 0 && this.#dirty && !this.#stopped) {
      this.#dirty = false;
      this.#events.status(this.#core.status());
    }
  }

  /** A local write, see `Store.exec`. A reader's is refused. */
  async exec(id: string, sql: string, args: readonly SqlValue[]): Promise<ExecAnswer> {
    if (!this.#writer) {
      throw new Error("this is a read link: only those who have the room's write link can change data");
    }
    const { changes, tables } = await this.#store.exec(id, sql, args.map(toValue));
    if (tables.length > 0) this.#events.changed(tables);
    void this.#committed();
    return { changes };
  }

  /** One statement that reads only. */
  async query(sql: string, args: readonly SqlValue[]): Promise<QueryAnswer> {
    const { columns, rows } = await this.#store.query(sql, args.map(toValue));
    return { columns, rows: rows.map((row) => row.map(fromValue)) };
  }

  /** Stops, and closes the store once what runs on it has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#store.close();
  }

  // Calls the core, and does what it asks for.
  #do(call: () => void): void {
    if (this.#stopped) return;
    try {
      this.#dirty = true;
      call();
      this.#drain();
    } catch (error) {
      this.#fail(error);
    }
  }

  #drain(): void {
    const ready = this.#core.ready();
    for (const { link, message } of ready.sends) this.#events.send(link, marshal(message));
    for (const r of ready.reads) void this.#run(() => this.#read(r));
    const { apply } = ready;
    if (apply) void this.#run(() => this.#apply(apply));
    for (const r of ready.schemas) void this.#run(() => this.#createTables(r));
    for (const { link, error } of ready.closes) this.#events.closeLink(link, error?.sentence);
    for (const e of ready.events) this.#notice(e);
    const { sends, reads, schemas, closes, events } = ready;
    if (apply || sends.length + reads.length + schemas.length + closes.length + events.length > 0) {
      this.#dirty = true;
    }
  }

  // Runs a job of the core's. What came in meanwhile goes first: statements of the page are not to wait for a whole
  // catch-up, which would otherwise go on without a pause.
  async #run(job: () => Promise<void>): Promise<void> {
    try {
      await turn();
      if (!this.#stopped) await job();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #read(r: ReadRequest): Promise<void> {
    const result = await this.#store.read(r);
    this.#do(() => this.#core.readDone(result));
  }

  async #apply(r: ApplyRequest): Promise<void> {
    const result = await this.#store.apply(r);
    for (const [site, reached] of r.resume) this.#resume.set(site, reached);
    this.#do(() => this.#core.applied(result));
    const tables = new Set<string>();
    r.groups.forEach((g, i) => {
      if (result.ls[i] !== 0) for (const c of g.changes) tables.add(c.table);
    });
    if (tables.size > 0) this.#events.changed([...tables]);
  }

  async #createTables({ link, tables }: SchemaRequest): Promise<void> {
    // One at a time: a table that this engine refuses costs no other.
    for (const table of tables) {
      try {
        await this.#store.createTables([table]);
      } catch (error) {
        // The statement is the other side's: it is told nothing, and its rows are put aside.
        this.#events.notice(`a table that a peer sent was not created: ${messageOf(error)}`);
      }
    }
    await this.#committed();
    this.#do(() => this.#core.schemaApplied(link));
  }

  // Tells the core what the store has now: one look for several commits.
  #committed(): Promise<void> {
    if (this.#committing) {
      this.#again = true;
      return this.#committing;
    }
    this.#committing = this.#run(async () => {
      do {
        this.#again = false;
        await this.#lookAtHeads();
      } while (this.#again && !this.#stopped);
    }).finally(() => {
      this.#committing = undefined;
    });
    return this.#committing;
  }

  async #lookAtHeads(): Promise<void> {
    let heads = await this.#store.heads();
    if (compareBytes(heads.schemaHash, this.#schemaHash) !== 0) {
      const tables = await this.#store.schema();
      this.#schemaHash = heads.schemaHash;
      this.#tables = tables.map((t) => t.name);
      this.#do(() => this.#core.schemaChanged(this.#schemaHash, tables));
      await this.#store.replay();
      heads = await this.#store.heads();
      this.#events.changed(this.#tables);
    }
    const { own, newest } = heads;
    this.#do(() => this.#core.committed(own, newest));
  }

  #notice(e: Event): void {
    switch (e.kind) {
      case EventParked:
        this.#events.notice(
          `${e.count} changes do not fit this database's tables and were put aside; they are applied once the tables fit`,
        );
        break;
      case EventTooLarge:
        this.#events.notice(
          `a value of ${e.size} bytes in table ${e.table} is larger than a peer accepts and was not sent to it`,
        );
        break;
      case EventStaleCopy:
        this.#events.notice(
          "another device has changes of this one that are not here: this browser's data was set back; reload to go on",
        );
        break;
      case EventVectorFull:
        this.#events.notice("this room has more databases than this version keeps track of");
    }
  }

  #fail(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#events.failed(error);
  }
}

/** Resolves after the events that have come in by now. */
function turn(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function messageOf(error: unknown): string {
  return asProtocolError(error, MaxSentence).sentence;
}

/** Calls `tick` of a driver every TickMillis; returns the end of that. */
export function keepTime(driver: Driver): () => void {
  let last = performance.now();
  const timer = setInterval(() => {
    const elapsed = Math.floor((performance.now() - last) / TickMillis);
    last += elapsed * TickMillis;
    driver.tick(elapsed);
  }, TickMillis);
  return () => clearInterval(timer);
}
