// Several tabs of one database: one of them leads, the others go through it.
//
// Who holds the Web Lock of the database leads; the next one waits for it, and takes over when the leader is gone. They talk
// over a BroadcastChannel. A tab that gets no answer because the leader is gone asks the next one again; a write has
// an id, by which it is done once.

import type { ExecAnswer, QueryAnswer } from "../worker/protocol.ts";
import { type Backend, type BackendEvents, GoneError } from "./backend.ts";
import { type Port, Rpc } from "./rpc.ts";
import type { ClientStatus } from "./status.ts";
import type { SqlValue } from "./values.ts";

/**
 * What tabs say to each other, and what a `ClientStatus` holds, in this version: to be raised with each change, since a page that was
 * opened before an update of the page's files goes on with the old ones.
 */
const version = 1;
/** How often a tab asks whether somebody leads: until it knows, and while it follows, in ms. */
const knockInterval = 300;
const checkInterval = 5_000;
/** For how long nobody may answer until a person is told, in ms. */
const patience = 15_000;
/** Tabs that a leader serves; the one that came first is forgotten when there are more. */
const maxFollowers = 64;

/** What the leader does for other tabs. */
interface LeaderMethods {
  /** First of all. Rejects if this tab has another room or role for the same database, or is of another version. */
  join(p: { readonly version: number; readonly room: string; readonly writer: boolean }): ClientStatus;
  exec(p: {
    readonly id: string;
    readonly sql: string;
    readonly args: readonly SqlValue[];
  }): Promise<ExecAnswer>;
  query(p: { readonly sql: string; readonly args: readonly SqlValue[] }): Promise<QueryAnswer>;
  /** This tab goes. */
  leave(p: null): void;
}

/** What is on the BroadcastChannel. `to` and `from` are ids of tabs. */
type Wire =
  | { readonly kind: "knock" } // does anybody lead?
  | { readonly kind: "opening" } // I shall, once the database is open
  | { readonly kind: "lead"; readonly from: string } // I do
  | { readonly kind: "call"; readonly to: string; readonly from: string; readonly body: unknown }
  | { readonly kind: "answer"; readonly to: string; readonly from: string; readonly body: unknown }
  | { readonly kind: "changed"; readonly from: string; readonly tables: readonly string[] }
  | { readonly kind: "status"; readonly from: string; readonly status: ClientStatus };

/** A backend that can be ended, and knows its status: this tab's own. */
export interface Lead extends Backend {
  status(): ClientStatus;
  stop(): Promise<void>;
}

/** What a tab is made of. */
export interface TabOptions {
  readonly database: string;
  /** Room id and role: all tabs of one database must agree on them. */
  readonly room: string;
  readonly writer: boolean;
  /** Called when this tab takes the lead. */
  lead(events: BackendEvents): Promise<Lead>;
  readonly events: BackendEvents & {
    /** Statements go to `backend` from now on; undefined: to nobody, for the time being. */
    backend(backend: Backend | undefined): void;
    /** The tab that has the database does not answer: a sentence. undefined: it does again. */
    silent(sentence: string | undefined): void;
  };
}

/** One tab's place among the tabs of a database. */
export class Tab {
  readonly #o: TabOptions;
  readonly #id = crypto.randomUUID();
  readonly #channel: BroadcastChannel;
  readonly #abort = new AbortController();
  readonly #followers = new Map<string, Rpc<LeaderMethods, object>>();
  readonly #toFollowers = new Map<string, (body: unknown) => void>();
  #lead: Lead | undefined;
  #leading = false; // holds the lock
  #release: () => void = () => {};
  #following: { readonly leader: string; readonly rpc: Rpc<object, LeaderMethods> } | undefined;
  #fromLeader: ((body: unknown) => void) | undefined;
  #knock: ReturnType<typeof setInterval> | undefined;
  #silence = 0; // ms for which nobody answered, as far as this page was awake
  #closed = false; // nothing is received or sent any more

  constructor(options: TabOptions) {
    this.#o = options;
    this.#channel = new BroadcastChannel(`crmesh:${options.database}`);
    this.#channel.onmessage = (event: MessageEvent) => this.#receive(event.data as Wire);
  }

  /** Waits for the lead, and follows meanwhile. */
  start(): void {
    addEventListener("pagehide", this.#hidden);
    this.#knockEvery(knockInterval);
    this.#post({ kind: "knock" });
    const held = navigator.locks.request(`crmesh:${this.#o.database}`, { signal: this.#abort.signal }, () =>
      this.#takeLead(),
    );
    held.catch((error: unknown) => {
      if (!this.#closed) this.#o.events.failed(error instanceof Error ? error : new Error(String(error)));
    });
  }

  /**
   * Ends what this tab leads, or leaves the leader. What other tabs still wait for is not answered any more: they ask the next
   * leader, which knows what was done.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#hidden();
    this.#closed = true;
    removeEventListener("pagehide", this.#hidden);
    clearInterval(this.#knock);
    this.#abort.abort();
    try {
      await this.#lead?.stop();
    } finally {
      this.#release();
      this.#channel.close();
    }
  }

  readonly #hidden = () => this.#following?.rpc.note("leave", null);

  // Leads until it is closed: the lock is held for as long.
  async #takeLead(): Promise<void> {
    if (this.#closed) return;
    this.#leading = true;
    clearInterval(this.#knock);
    this.#unfollow();
    this.#hear();
    const released = new Promise<void>((resolve) => {
      this.#release = resolve;
    });
    const lead = await this.#o.lead({
      changed: (tables) => {
        this.#o.events.changed(tables);
        this.#post({ kind: "changed", from: this.#id, tables });
      },
      status: (status) => {
        this.#o.events.status(status);
        this.#post({ kind: "status", from: this.#id, status: { ...status, leader: false } });
      },
      failed: (error) => this.#o.events.failed(error),
    });
    if (this.#closed) {
      await lead.stop();
      return;
    }
    this.#lead = lead;
    this.#o.events.status(lead.status());
    this.#o.events.backend(lead);
    this.#post({ kind: "lead", from: this.#id });
    await released;
  }

  // Asks every `interval` whether somebody leads. One answer is enough for all tabs that ask.
  #knockEvery(interval: number): void {
    clearInterval(this.#knock);
    this.#knock = setInterval(() => {
      if (this.#silence >= patience && this.#silence < patience + interval) {
        this.#o.events.silent(
          "another tab has this database and does not answer: it may be asleep, or wait for you; show that tab or close it",
        );
      }
      this.#silence += interval;
      if (this.#silence > interval || !this.#following) this.#post({ kind: "knock" });
    }, interval);
  }

  // The tab that leads, or is about to, is awake.
  #hear(): void {
    if (this.#silence >= patience) this.#o.events.silent(undefined);
    this.#silence = 0;
  }

  #receive(m: Wire): void {
    if (this.#closed) return;
    if (m.kind === "opening" || ("from" in m && (m.kind === "lead" || m.from === this.#following?.leader))) {
      this.#hear();
    }
    switch (m.kind) {
      case "knock":
        if (this.#lead) this.#post({ kind: "lead", from: this.#id });
        else if (this.#leading) this.#post({ kind: "opening" });
        break;
      case "lead":
        this.#follow(m.from);
        break;
      case "call":
        if (m.to === this.#id && this.#lead) this.#serve(m.from, m.body);
        break;
      case "answer":
        if (m.to === this.#id && m.from === this.#following?.leader) this.#fromLeader?.(m.body);
        break;
      case "changed":
        if (m.from === this.#following?.leader) this.#o.events.changed(m.tables);
        break;
      case "status":
        if (m.from === this.#following?.leader) this.#o.events.status(m.status);
    }
  }

  // Goes through `leader` from now on.
  #follow(leader: string): void {
    if (this.#leading || this.#following?.leader === leader) return;
    this.#unfollow();
    const port: Port = {
      post: (body) => this.#post({ kind: "call", to: leader, from: this.#id, body }),
      listen: (receive) => {
        this.#fromLeader = receive;
      },
    };
    const following = { leader, rpc: new Rpc<object, LeaderMethods>(port, {}) };
    this.#following = following;
    const { room, writer } = this.#o;
    following.rpc.call("join", { version, room, writer }).then(
      (status) => {
        if (this.#following !== following) return;
        this.#knockEvery(checkInterval);
        this.#o.events.status(status);
        this.#o.events.backend({
          exec: (id, sql, args) => following.rpc.call("exec", { id, sql, args }),
          query: (sql, args) => following.rpc.call("query", { sql, args }),
        });
      },
      (error: Error) => {
        if (this.#following === following && !(error instanceof GoneError)) this.#o.events.failed(error);
      },
    );
  }

  #unfollow(): void {
    const following = this.#following;
    this.#following = undefined;
    if (!following) return;
    this.#o.events.backend(undefined);
    following.rpc.end(new GoneError());
  }

  // Answers another tab.
  #serve(follower: string, body: unknown): void {
    if (!this.#followers.has(follower)) this.#admit(follower);
    this.#toFollowers.get(follower)?.(body);
  }

  #admit(follower: string): void {
    const forget = (id: string) => {
      this.#followers.delete(id);
      this.#toFollowers.delete(id);
    };
    const [first] = this.#followers.keys();
    if (this.#followers.size >= maxFollowers && first !== undefined) forget(first);
    const lead = () => this.#lead as Lead;
    const port: Port = {
      post: (answer) => this.#post({ kind: "answer", to: follower, from: this.#id, body: answer }),
      listen: (receive) => this.#toFollowers.set(follower, receive),
    };
    const methods: LeaderMethods = {
      join: ({ version: v, room, writer }) => {
        if (v !== version) {
          throw new Error(
            "this database is open in a tab with another version of this page; reload that tab, and then this one",
          );
        }
        if (room !== this.#o.room || writer !== this.#o.writer) {
          throw new Error(
            "this database is open in another tab with another link; close that tab, or open its link here",
          );
        }
        return { ...lead().status(), leader: false };
      },
      exec: ({ id, sql, args }) => lead().exec(id, sql, args),
      query: ({ sql, args }) => lead().query(sql, args),
      leave: () => forget(follower),
    };
    this.#followers.set(follower, new Rpc<LeaderMethods, object>(port, methods));
  }

  #post(m: Wire): void {
    if (!this.#closed) this.#channel.postMessage(m);
  }
}
