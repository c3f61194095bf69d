// The tab that has the database: its Worker, its links, and what it does for other tabs.

import { Mesh } from "../mesh/node.ts";
import type { PeerID } from "../signaling/id.ts";
import type { Keys } from "../signaling/link.ts";
import type { DriverStatus } from "../worker/driver.ts";
import type { ExecAnswer, PageMethods, QueryAnswer, Started, WorkerMethods } from "../worker/protocol.ts";
import type { AcceptSchema, Parked } from "../worker/store.ts";
import type { Backend, BackendEvents } from "./backend.ts";
import { portOf, Rpc } from "./rpc.ts";
import { type ClientStatus, memberOf, Progress, syncedWith } from "./status.ts";
import type { SqlValue } from "./values.ts";

/** The least time between two statuses, in ms. */
const statusPause = 100;
/** How long a notice stays in the status, in ms. */
const noticeTime = 60_000;
/** How long a Worker may take to close its database, in ms. Ending it earlier loses nothing that was acknowledged. */
const stopTime = 3_000;

const noneParked: Parked = { changes: 0, bytes: 0, tables: [], more: 0 };

/** What a leader is made of. */
export interface LeaderOptions {
  readonly database: string;
  readonly keys: Keys;
  readonly peer: PeerID;
  readonly name: string;
  /** WebSocket addresses of signaling servers. */
  readonly urls: readonly string[];
  readonly joinToken: string | undefined;
  readonly relayOnly: boolean;
  readonly accept: AcceptSchema;
  readonly worker: Worker;
  readonly events: BackendEvents;
}

/** Owns the Worker and the mesh of a database. */
export class Leader implements Backend {
  readonly #o: LeaderOptions;
  readonly #worker: Rpc<PageMethods, WorkerMethods>;
  #started: Started | undefined;
  #mesh: Mesh | undefined;
  #core: DriverStatus | undefined;
  readonly #progress = new Progress();
  #problem: string | undefined;
  #notice: { readonly sentence: string; readonly until: number } | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #shown = "";
  #stopped = false;

  private constructor(options: LeaderOptions) {
    this.#o = options;
    this.#worker = new Rpc<PageMethods, WorkerMethods>(portOf(options.worker), {
      send: ({ link, bytes }) => this.#mesh?.send(link, bytes),
      closeLink: ({ link, reason }) => this.#mesh?.closeLink(link, reason),
      changed: ({ tables }) => options.events.changed(tables),
      status: (status) => {
        this.#core = status;
        this.#changed();
      },
      notice: ({ sentence }) => {
        this.#notice = { sentence, until: performance.now() + noticeTime };
        this.#changed();
      },
      renewed: ({ site, line }) => {
        // biome-ignore lint/suspicious/noConsole: the one line in the log that a new site id is worth
        if (line !== undefined) console.info(line);
        if (this.#started) this.#started = { ...this.#started, site };
        this.#mesh?.rename(site);
      },
      failed: ({ sentence }) => this.#fail(sentence),
    });
    options.worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(
        `the database's Worker failed (${event.message || "it could not be loaded"}); reload the page`,
      );
    };
  }

  /** Opens the database, and then joins the room. Rejects if the database cannot be opened; the Worker is ended then. */
  static async start(options: LeaderOptions): Promise<Leader> {
    const leader = new Leader(options);
    try {
      await leader.#start();
    } catch (error) {
      options.worker.terminate();
      throw error;
    }
    return leader;
  }

  async #start(): Promise<void> {
    const { database, keys, peer, name, urls, joinToken, relayOnly, accept } = this.#o;
    this.#started = await this.#worker.call("start", { database, writer: keys.writer !== undefined, accept });
    this.#mesh = new Mesh({
      keys,
      site: this.#started.site,
      peer,
      name,
      urls,
      joinToken,
      relayOnly,
      core: {
        open: (link, own, remote, proof) => this.#worker.note("open", { link, own, remote, proof }),
        message: (link, bytes) => this.#worker.note("message", { link, bytes }, [bytes.buffer]),
        refuse: (link, code, sentence) => this.#worker.note("refuse", { link, code, sentence }),
        closed: (link) => this.#worker.note("closed", { link }),
      },
      changed: () => this.#changed(),
    });
    addEventListener("pagehide", this.#hidden);
    this.#mesh.start();
    this.#changed();
  }

  exec(id: string, sql: string, args: readonly SqlValue[]): Promise<ExecAnswer> {
    return this.#worker.call("exec", { id, sql, args });
  }

  query(sql: string, args: readonly SqlValue[]): Promise<QueryAnswer> {
    return this.#worker.call("query", { sql, args });
  }

  status(): ClientStatus {
    const links = this.#core?.links ?? [];
    const members = this.#mesh?.members() ?? [];
    const signal = this.#mesh?.signal() ?? { state: "waiting" as const, error: undefined };
    const byLink = new Map(links.map((l) => [l.link, l]));
    return {
      writer: this.#o.keys.writer !== undefined,
      leader: true,
      storage: this.#started?.storage ?? "opfs",
      site: this.#started?.site ?? "",
      signal,
      members: members
        .map((m) => memberOf(m, m.link === undefined ? undefined : byLink.get(m.link)))
        .sort((a, b) => (a.peer < b.peer ? -1 : 1)),
      synced: syncedWith(this.#core, members, signal.state),
      ...this.#progress.update(links),
      parked: this.#core?.parked ?? noneParked,
      renewals: this.#core?.renewals ?? 0,
      problem: this.#problem ?? this.#currentNotice(),
    };
  }

  /** Leaves the room, closes the database and ends the Worker. */
  async stop(): Promise<void> {
    this.#leave();
    const late = new Promise<void>((resolve) => setTimeout(resolve, stopTime));
    // A Worker that has failed has told why before; there is nothing left to be told.
    await Promise.race([this.#worker.call("stop", null).catch(() => {}), late]);
    this.#worker.end(new Error("the client is closed"));
    this.#o.worker.terminate();
  }

  #currentNotice(): string | undefined {
    return this.#notice && performance.now() < this.#notice.until ? this.#notice.sentence : undefined;
  }

  readonly #hidden = (event: PageTransitionEvent) => {
    // The others need not wait for the silence of a page that is gone. One that is kept for going back comes back.
    if (!event.persisted) this.#leave();
  };

  #leave(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    removeEventListener("pagehide", this.#hidden);
    this.#mesh?.close();
  }

  #fail(sentence: string): void {
    if (this.#stopped) return;
    this.#leave();
    this.#problem = sentence;
    if (this.#started) this.#o.events.status(this.status());
    const error = new Error(sentence);
    this.#o.events.failed(error); // first, so that other tabs ask the next leader for what is rejected now
    this.#worker.end(error);
  }

  #changed(): void {
    if (this.#stopped || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const status = this.status();
      const shown = JSON.stringify(status);
      if (shown === this.#shown) return;
      this.#shown = shown;
      this.#o.events.status(status);
    }, statusPause);
  }
}
