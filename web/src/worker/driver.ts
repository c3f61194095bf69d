// Drives the core of one database: what the core asks for is done with the store, and what comes of it goes back.

import { compareBytes } from "../changeset/value.ts";
import type { SqlValue } from "../client/values.ts";
import { fromValue, toValue } from "../client/values.ts";
import { StorageError } from "../engine/errors.ts";
import { marshal, parse } from "../syncproto/codec.ts";
import { Core } from "../syncproto/core.ts";
import { ProtocolError } from "../syncproto/errors.ts";
import { TypeBye } from "../syncproto/message.ts";
import type { ApplyRequest, LinkID, LookRequest, ReadRequest, SchemaRequest } from "../syncproto/ops.ts";
import {
  type Event,
  EventParked,
  EventSameSite,
  EventStaleCopy,
  EventTooLarge,
  EventVectorFull,
  type Status,
} from "../syncproto/status.ts";
import type { SiteID } from "../syncproto/vector.ts";
import type { ExecAnswer, QueryAnswer } from "./protocol.ts";
import { RenewalPause, Renewals, renewing } from "./renewals.ts";
import type { AcceptSchema, Heads, Parked, State, Store } from "./store.ts";
import { turn } from "./time.ts";

/** Ticks between two pictures of the core, where something changed. */
const statusTicks = 5;
/** Ticks that are made up for at once after a pause of the Worker. */
const maxMissedTicks = 20;

/** About how much of the rows of one resend is sent, in bytes. */
const resendBytes = 1024 * 1024;

/** What a driver tells its owner, also from within a call into it. */
export interface DriverEvents {
  send(link: LinkID, bytes: Uint8Array<ArrayBuffer>): void;
  closeLink(link: LinkID, reason: string | undefined): void;
  changed(tables: readonly string[]): void;
  status(status: DriverStatus): void;
  notice(sentence: string): void;
  /**
   * The database goes on as `site`, a new one or, where it has none to give, the old one: `closeLink` was called for all links,
   * and everybody is to be met anew under it. `line`: for the log, of a new one.
   */
  renewed(site: SiteID, line: string | undefined): void;
  /** The store failed, or the core did: nothing is done any more. Once. */
  failed(error: unknown): void;
}

/** A picture of a driver: of its core, and what is put aside now. */
export interface DriverStatus extends Status {
  readonly parked: Parked;
  /** New site ids since the driver was started. */
  readonly renewals: number;
}

/** Options of `Driver.start`. */
export interface DriverOptions {
  /** See `Store.takeSchema`. Default: "additive". */
  readonly accept?: AcceptSchema;
  /** The least time between two new site ids in ms; for tests. */
  readonly renewalPause?: number;
  /** How long to wait for room where the storage is full, in ms; for tests. Default: 5,000. */
  readonly fullPause?: number;
}

/** Owns a core and its store. Everything it does it does in turn with the calls into it; no call blocks. */
export class Driver {
  readonly #store: Store;
  readonly #writer: boolean;
  readonly #seed: bigint;
  readonly #events: DriverEvents;
  readonly #accept: AcceptSchema;
  readonly #renewals: Renewals;
  readonly #fullPause: number; // ms
  // Of the store as it is under its site.
  #core!: Core;
  #site!: SiteID;
  #resume!: Map<SiteID, number>;
  #known!: Heads; // as the core knows the schema of
  #untried!: boolean; // what is put aside is to be tried though the schema is known
  #parked!: Parked;
  #tables!: readonly string[];
  #committing: Promise<void> | undefined; // looking at the store's heads
  #again = false; // and once more afterwards
  #dirty = true; // since the last status
  #ticks = 0;
  #stopped = false;

  private constructor(store: Store, writer: boolean, seed: bigint, events: DriverEvents, o: DriverOptions) {
    this.#store = store;
    this.#writer = writer;
    this.#seed = seed;
    this.#events = events;
    this.#accept = o.accept ?? "additive";
    this.#fullPause = o.fullPause ?? 5_000;
    this.#renewals = new Renewals(writer, o.renewalPause ?? RenewalPause);
  }

  /** Starts to drive a store, which it owns from now on. `seed`: 64 random bits. */
  static async start(
    store: Store,
    writer: boolean,
    seed: bigint,
    events: DriverEvents,
    options: DriverOptions = {},
  ): Promise<Driver> {
    const driver = new Driver(store, writer, seed, events, options);
    driver.#adopt(await store.state());
    if (driver.#untried) void driver.#committed();
    return driver;
  }

  get site(): SiteID {
    return this.#site;
  }

  // Makes a core of what the store holds.
  #adopt(state: State): void {
    this.#site = state.site;
    this.#resume = new Map(state.resume);
    this.#known = state;
    this.#untried = state.untried;
    this.#parked = state.parked;
    this.#tables = state.tables.map((t) => t.name);
    const { site, own, newest, vector, schemaHash } = state;
    const [writer, seed] = [this.#writer, this.#seed];
    this.#core = new Core({ site, writer, own, newest, vector, schemaHash, seed, maxMessage: 0 });
    this.#core.schemaChanged(schemaHash, state.generation, state.tables);
  }

  /** The channel of a link is open, to which this side came as `own`: it is asked to be closed if that is an old site of it. */
  open(link: LinkID, own: SiteID, remote: SiteID, proof: Uint8Array): void {
    if (this.#renewals.reason !== undefined || own !== this.#site) {
      this.#events.closeLink(link, renewing);
      return;
    }
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
      this.#events.status({ ...this.#core.status(), parked: this.#parked, renewals: this.#renewals.count });
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

  // Calls the core, and does what it asks for; one that is not to go on is left alone. `core`: whose request is answered.
  #do(call: () => void, core = this.#core): void {
    if (!this.#serves(core)) return;
    try {
      this.#dirty = true;
      call();
      this.#drain();
    } catch (error) {
      this.#fail(error);
    }
  }

  // Whether what `core` asked for is still of use.
  #serves(core: Core): boolean {
    return !this.#stopped && this.#renewals.reason === undefined && core === this.#core;
  }

  #drain(): void {
    const ready = this.#core.ready();
    for (const { link, message } of ready.sends) this.#events.send(link, marshal(message));
    for (const r of ready.reads) void this.#run((core) => this.#read(core, r));
    const { apply } = ready;
    if (apply) void this.#run((core) => this.#apply(core, apply));
    for (const r of ready.schemas) void this.#run((core) => this.#takeSchema(core, r));
    const { look } = ready;
    if (look) void this.#run((core) => this.#look(core, look));
    for (const { link, error } of ready.closes) this.#events.closeLink(link, error?.sentence);
    for (const e of ready.events) this.#notice(e);
    const { sends, reads, schemas, closes, events } = ready;
    if (apply || look || sends.length + reads.length + schemas.length + closes.length + events.length > 0) {
      this.#dirty = true;
    }
  }

  // Runs a job of the core's. What came in meanwhile goes first: statements of the page are not to wait for a whole
  // catch-up, which would otherwise go on without a pause. Where the storage is full, the job waits until there is room: whoever
  // uses the page can read what is there, and delete some of it.
  async #run(job: (core: Core) => Promise<void>): Promise<void> {
    const core = this.#core;
    for (;;) {
      try {
        await turn();
        if (this.#serves(core)) await job(core);
        return;
      } catch (error) {
        if (!(error instanceof StorageError) || !error.passing) return this.#fail(error);
        this.#events.notice(`what others wrote waits: ${error.message}`);
      }
      await new Promise((resolve) => setTimeout(resolve, this.#fullPause));
    }
  }

  async #read(core: Core, r: ReadRequest): Promise<void> {
    const result = await this.#store.read(r);
    this.#do(() => core.readDone(result), core);
  }

  async #look(core: Core, { id, digest, resend }: LookRequest): Promise<void> {
    const start = performance.now();
    const answer = digest && (await this.#store.digest(digest));
    const entries = resend ? await this.#store.rows(resend.table, resend.places, resendBytes) : [];
    this.#do(() => core.lookDone({ id, answer, entries, millis: performance.now() - start }), core);
  }

  async #apply(core: Core, r: ApplyRequest): Promise<void> {
    const result = await this.#store.apply(r);
    if (!result.refused && core === this.#core) {
      for (const [site, reached] of r.resume) this.#resume.set(site, reached);
    }
    if (result.parked) this.#parked = await this.#store.parked();
    this.#do(() => core.applied(result), core);
    const tables = new Set<string>();
    r.groups.forEach((g, i) => {
      if (result.ls[i] !== 0) for (const c of g.changes) tables.add(c.table);
    });
    if (tables.size > 0) this.#events.changed([...tables]);
  }

  async #takeSchema(core: Core, r: SchemaRequest): Promise<void> {
    // The statements are the other side's: it is told nothing, and its rows are put aside.
    for (const sentence of await this.#store.takeSchema(r, this.#accept)) {
      this.#events.notice(`what a peer's schema has was not taken: ${sentence}`);
    }
    await this.#committed();
    this.#do(() => core.schemaApplied(r.link), core);
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
      if (this.#again && this.#serves(this.#core)) void this.#committed(); // it was begun for a core that is gone
    });
    return this.#committing;
  }

  async #lookAtHeads(): Promise<void> {
    const core = this.#core;
    let heads = await this.#store.heads();
    const known = this.#known;
    const same =
      !this.#untried &&
      heads.schema === known.schema &&
      heads.generation === known.generation &&
      compareBytes(heads.schemaHash, known.schemaHash) === 0;
    if (!same) {
      this.#untried = true;
      const tables = await this.#store.schema();
      this.#known = heads;
      this.#tables = tables.map((t) => t.name);
      const { schemaHash, generation } = heads;
      this.#do(() => core.schemaChanged(schemaHash, generation, tables), core);
      await this.#store.replay();
      this.#untried = false;
      this.#parked = await this.#store.parked();
      heads = await this.#store.heads();
      this.#events.changed(this.#tables);
    }
    const { own, newest } = heads;
    this.#do(() => core.committed(own, newest), core);
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
      case EventSameSite:
        this.#disputed(e);
        break;
      case EventVectorFull:
        this.#events.notice("this room has more databases than this version keeps track of");
    }
  }

  // Takes leave of all links for a new site id, if there is to be one.
  #disputed(e: Event): void {
    if (this.#renewals.reason !== undefined) return;
    const notice = this.#renewals.dispute(e, performance.now());
    if (notice !== undefined) {
      this.#events.notice(notice);
      return;
    }
    for (const { link } of this.#core.status().links) {
      this.#events.send(link, marshal({ type: TypeBye, sentence: renewing }));
      this.#events.closeLink(link, renewing);
    }
    void this.#renew();
  }

  // What the old core has begun ends before, since the store goes by turns; no more of it is begun, and none of it is answered.
  async #renew(): Promise<void> {
    try {
      const done = await this.#store.renew();
      const state = await this.#store.state();
      const line = this.#renewals.done(done, performance.now());
      if (this.#stopped) return;
      this.#adopt(state);
      this.#dirty = true;
      this.#events.renewed(state.site, line);
      void this.#committed(); // what was committed since
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#events.failed(error);
  }
}
