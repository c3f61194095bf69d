// The public API: a room's database in this browser.

import { newPeerID } from "../signaling/id.ts";
import { isJoinToken, newRoom, parseLink, readLink, withToken, writeLink } from "../signaling/link.ts";
import { nameFault } from "../signaling/messages.ts";
import { webSocketURL } from "../signaling/url.ts";
import type { ExecAnswer, QueryAnswer } from "../worker/protocol.ts";
import type { AcceptSchema } from "../worker/store.ts";
import { type Backend, GoneError } from "./backend.ts";
import { Leader } from "./leader.ts";
import type { ClientStatus } from "./status.ts";
import { Tab } from "./tabs.ts";
import { type SqlValue, toValue } from "./values.ts";

/** Statements that may wait for an answer at a time. */
const maxWaiting = 10_000;
/** How long changes are gathered before `onChange` tells of them, in ms. */
const changePause = 20;

/** The links of a room. Whoever has one is in: treat them as passwords. */
export interface RoomLinks {
  /** Makes its holder a writer; undefined if it is not known here, because this is a read link. */
  readonly write: string | undefined;
  /** Makes its holder a reader. */
  readonly read: string;
}

/** Options of `open`. */
export interface OpenOptions {
  /** A write or read link of the room. */
  readonly room: string;
  /** Name of the database in this browser, 1 to 64 characters. Default: one for each room. */
  readonly database?: string;
  /** Addresses of signaling servers, http(s) or ws(s), tried in turn. Default: that of the link, or else of the page. */
  readonly signal?: readonly string[];
  /** For signaling servers that ask for a join token. Default: the one in the link. The links of the room bring it along. */
  readonly joinToken?: string;
  /**
   * Makes links over TURN relays only (`iceTransportPolicy: "relay"`), so that members learn no address of this device. The
   * signaling server has to name a TURN server, or no link comes about. All tabs of a database do as the first one was told.
   */
  readonly relayOnly?: boolean;
  /** What the other members see, at most 64 bytes. Default: "". */
  readonly name?: string;
  /**
   * What is taken of the schemas of other members: "additive", the default: tables and columns that are missing; "never":
   * nothing, and what does not fit is put aside until `exec` has brought the tables up to date.
   */
  readonly acceptSchema?: AcceptSchema;
  /** Makes the Worker, where the bundler cannot find it by itself: an instance of `worker/worker.ts`. */
  readonly worker?: () => Worker;
}

/** The result of a write. */
export type ExecResult = ExecAnswer;
/** The rows of a query, in order. */
export type QueryResult = QueryAnswer;

/** A room's database in this browser. All tabs of one database share it. Nothing here blocks the page. */
export interface Client {
  /** The links of the room, to be passed on. */
  readonly links: RoomLinks;

  /**
   * Runs SQL that may write, in one transaction; `args` bind to the first statement. Resolves once it is durable in this
   * browser; the others get it as soon as they can be reached. It waits for the writes before it, not for the network. If
   * the tab that has the database is closed meanwhile, the next one does it, exactly once. Rejects with an Error whose
   * message says what is wrong: the statement, a read link, full storage.
   */
  exec(sql: string, args?: readonly SqlValue[]): Promise<ExecResult>;

  /** Runs one statement that only reads. Up to 100,000 rows and about 64 MB; more is an error. */
  query(sql: string, args?: readonly SqlValue[]): Promise<QueryResult>;

  /**
   * Calls `listener` after commits, local ones and those of others, with the names of the tables they touched; several
   * commits within some milliseconds are told together. Returns a function that ends it.
   */
  onChange(listener: (tables: ReadonlySet<string>) => void): () => void;

  /** The latest status: the same object until something in it changes. */
  status(): ClientStatus;

  /** Calls `listener` whenever `status()` is a new one, at most about ten times a second. Returns a function that ends it. */
  subscribe(listener: () => void): () => void;

  /** Leaves the room and closes the database; statements that wait for an answer are rejected. Data stays. */
  close(): Promise<void>;
}

/** Makes a room, without asking any server: its links. `base`: the address of the page, default this one's. */
export async function createRoom(base: string = pageAddress()): Promise<RoomLinks> {
  const keys = await newRoom();
  return { write: writeLink(keys, base), read: readLink(keys, base) };
}

/**
 * Opens the database of a room, and joins the room. Resolves once the database can be used, with or without a network.
 * Rejects with a `LinkError` for a wrong link, or an Error that says what keeps the database from being opened. The
 * client belongs to the caller, who closes it; a page that goes away closes it by itself.
 */
export async function open(options: OpenOptions): Promise<Client> {
  const { base, token, keys } = await parseLink(options.room);
  const joinToken = options.joinToken ?? token;
  if (joinToken !== undefined && !isJoinToken(joinToken)) {
    throw new Error(
      "the join token has other characters than letters, digits, '-', '.', '_' and '~', or more than 256",
    );
  }
  const name = options.name ?? "";
  const fault = nameFault(name);
  if (fault) throw new Error(fault);
  const urls = (options.signal ?? [base || pageAddress()]).map(webSocketURL);
  const database = options.database ?? `room-${keys.room}`;
  const from = withToken(base || pageAddress(), joinToken);
  const accept = options.acceptSchema ?? "additive";
  if (accept !== "additive" && accept !== "never") throw new Error('acceptSchema is "additive" or "never"');
  const links = { write: writeLink(keys, from), read: readLink(keys, from) };
  const client = new TabClient(links);
  const peer = newPeerID();
  const tab = new Tab({
    database,
    room: keys.room,
    writer: keys.writer !== undefined,
    lead: (events) =>
      Leader.start({
        database,
        keys,
        peer,
        name,
        urls,
        joinToken,
        relayOnly: options.relayOnly ?? false,
        accept,
        worker: (options.worker ?? newWorker)(),
        events,
      }),
    events: client.events,
  });
  await client.start(tab);
  return client;
}

function newWorker(): Worker {
  return new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module" });
}

function pageAddress(): string {
  return new URL(".", location.href).href;
}

/** A statement that waits for its answer. */
interface Waiting {
  run(backend: Backend): Promise<unknown>;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

class TabClient implements Client {
  readonly links: RoomLinks;
  readonly #waiting = new Set<Waiting>();
  readonly #onChange = new Set<(tables: ReadonlySet<string>) => void>();
  readonly #onStatus = new Set<() => void>();
  #backend: Backend | undefined;
  #status: ClientStatus | undefined;
  #told: ClientStatus | undefined; // the last one of the backend
  #changed = new Set<string>();
  #changeTimer: ReturnType<typeof setTimeout> | undefined;
  #tab: Tab | undefined;
  #ended: Error | undefined;
  #opened: { resolve: () => void; reject: (error: Error) => void } | undefined;

  constructor(links: RoomLinks) {
    this.links = links;
  }

  readonly events = {
    changed: (tables: readonly string[]) => this.#gather(tables),
    status: (status: ClientStatus) => {
      this.#told = status;
      this.#show(status);
    },
    silent: (sentence: string | undefined) => {
      if (this.#opened && sentence !== undefined) this.events.failed(new Error(sentence));
      else if (this.#told)
        this.#show(sentence === undefined ? this.#told : { ...this.#told, problem: sentence });
    },
    backend: (backend: Backend | undefined) => {
      const again = backend !== undefined && this.#opened === undefined;
      this.#backend = backend;
      if (!backend) return;
      this.#opened?.resolve();
      this.#opened = undefined;
      for (const w of this.#waiting) void this.#ask(w, backend);
      // What the last backend was about to tell of may have gone with it.
      if (again) void this.#gatherAll(backend);
    },
    failed: (error: Error) => {
      this.#opened?.reject(error);
      this.#opened = undefined;
      if (this.#told) this.#show({ ...this.#told, problem: error.message });
      void this.#end(error);
    },
  };

  /** Resolves once there is a backend. */
  async start(tab: Tab): Promise<void> {
    this.#tab = tab;
    const opened = new Promise<void>((resolve, reject) => {
      this.#opened = { resolve, reject };
    });
    tab.start();
    await opened;
  }

  exec(sql: string, args: readonly SqlValue[] = []): Promise<ExecResult> {
    const id = crypto.randomUUID();
    return this.#call(args, (backend) => backend.exec(id, sql, args)) as Promise<ExecResult>;
  }

  query(sql: string, args: readonly SqlValue[] = []): Promise<QueryResult> {
    return this.#call(args, (backend) => backend.query(sql, args)) as Promise<QueryResult>;
  }

  onChange(listener: (tables: ReadonlySet<string>) => void): () => void {
    this.#onChange.add(listener);
    return () => this.#onChange.delete(listener);
  }

  status(): ClientStatus {
    if (!this.#status) throw new Error("the client is not open");
    return this.#status;
  }

  subscribe(listener: () => void): () => void {
    this.#onStatus.add(listener);
    return () => this.#onStatus.delete(listener);
  }

  close(): Promise<void> {
    return this.#end(new Error("the client is closed"));
  }

  async #call(args: readonly SqlValue[], run: Waiting["run"]): Promise<unknown> {
    if (this.#ended) throw this.#ended;
    if (this.#waiting.size >= maxWaiting) {
      throw new Error(`${maxWaiting} statements wait for an answer already; wait for some of them`);
    }
    for (const arg of args) toValue(arg); // a wrong one is found here, and not on the other side
    return new Promise((resolve, reject) => {
      const w: Waiting = { run, resolve, reject };
      this.#waiting.add(w);
      if (this.#backend) void this.#ask(w, this.#backend);
    });
  }

  // Asks a backend. If it is gone before it answers, the statement waits for the next one.
  async #ask(w: Waiting, backend: Backend): Promise<void> {
    try {
      const result = await w.run(backend);
      if (this.#waiting.delete(w)) w.resolve(result);
    } catch (error) {
      if (!(error instanceof GoneError) && this.#waiting.delete(w)) w.reject(error);
    }
  }

  #gather(tables: readonly string[]): void {
    for (const table of tables) this.#changed.add(table);
    this.#changeTimer ??= setTimeout(() => {
      this.#changeTimer = undefined;
      const changed = this.#changed;
      this.#changed = new Set();
      tell(this.#onChange, (listener) => listener(changed));
    }, changePause);
  }

  #show(status: ClientStatus): void {
    this.#status = status;
    tell(this.#onStatus, (listener) => listener());
  }

  async #gatherAll(backend: Backend): Promise<void> {
    try {
      const { rows } = await backend.query("SELECT name FROM sqlite_master WHERE type = 'table'", []);
      this.#gather(rows.map(([name]) => String(name)));
    } catch {
      // This one is gone too, or failed: the next one is asked, or the status tells.
    }
  }

  async #end(error: Error): Promise<void> {
    if (this.#ended) return;
    this.#ended = error;
    clearTimeout(this.#changeTimer);
    for (const { reject } of this.#waiting) reject(error);
    this.#waiting.clear();
    await this.#tab?.close();
  }
}

// Calls listeners. One that throws, which is a fault of its owner's, keeps nothing from the others.
function tell<T>(listeners: ReadonlySet<T>, call: (listener: T) => void): void {
  for (const listener of [...listeners]) {
    if (!listeners.has(listener)) continue; // one before has ended it
    try {
      call(listener);
    } catch (error) {
      reportError(error);
    }
  }
}
