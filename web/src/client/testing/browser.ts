// What tabs of one browser have in common, for tests in Node: Web Locks, BroadcastChannels, and Workers without a database.

import { vi } from "vitest";
import type { ExecAnswer, PageMethods, QueryAnswer, WorkerMethods } from "../../worker/protocol.ts";
import { Rpc } from "../rpc.ts";

/** A BroadcastChannel whose tab can fall asleep. */
class Channel {
  static readonly all = new Set<Channel>();
  onmessage: ((event: MessageEvent) => void) | null = null;
  /** What came in while the tab sleeps; undefined: it is awake. */
  asleep: unknown[] | undefined;

  constructor(readonly name: string) {
    Channel.all.add(this);
  }

  postMessage(message: unknown): void {
    if (this.asleep) return; // its timers would stand still
    for (const other of Channel.all) {
      if (other === this || other.name !== this.name) continue;
      const clone = structuredClone(message);
      queueMicrotask(() => {
        if (other.asleep) other.asleep.push(clone);
        else other.onmessage?.({ data: clone } as MessageEvent);
      });
    }
  }

  close(): void {
    Channel.all.delete(this);
    this.onmessage = null;
  }
}

class Locks {
  readonly #tails = new Map<string, Promise<unknown>>();

  request(name: string, { signal }: { signal: AbortSignal }, held: () => Promise<void>): Promise<void> {
    const turn = (this.#tails.get(name) ?? Promise.resolve()).then(() => {
      signal.throwIfAborted();
      return held();
    });
    this.#tails.set(
      name,
      turn.catch(() => {}),
    );
    return turn;
  }
}

/** A Worker that notes what it is asked for, and answers as the test says. */
export class FakeWorker {
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  terminated = false;
  /** Ids of the writes that came in. */
  readonly ids: string[] = [];
  readonly page: Rpc<WorkerMethods, PageMethods>;
  #receive: (message: unknown) => void = () => {};

  constructor(exec: () => Promise<ExecAnswer>, query: (sql: string) => Promise<QueryAnswer>) {
    const ignore = () => {};
    const methods: WorkerMethods = {
      start: async () => ({ site: "00".repeat(16), storage: "opfs" }),
      exec: ({ id }) => {
        this.ids.push(id);
        return exec();
      },
      query: ({ sql }) => query(sql),
      open: ignore,
      message: ignore,
      refuse: ignore,
      closed: ignore,
      stop: async () => {},
    };
    const port = {
      post: (message: unknown) => {
        const clone = structuredClone(message);
        queueMicrotask(() => {
          if (!this.terminated) this.onmessage?.({ data: clone } as MessageEvent);
        });
      },
      listen: (receive: (message: unknown) => void) => {
        this.#receive = receive;
      },
    };
    this.page = new Rpc<WorkerMethods, PageMethods>(port, methods);
  }

  postMessage(message: unknown): void {
    const clone = structuredClone(message);
    queueMicrotask(() => {
      if (!this.terminated) this.#receive(clone);
    });
  }

  terminate(): void {
    this.terminated = true;
  }

  /** Fails as a Worker does whose code throws, or cannot be loaded. */
  fail(message: string): void {
    this.onerror?.({ message, preventDefault: () => {} } as ErrorEvent);
  }
}

/** Gives this process what a browser's tabs have, until `vi.unstubAllGlobals`. */
export function stubBrowser(): void {
  Channel.all.clear();
  const nothing = new EventTarget();
  vi.stubGlobal("BroadcastChannel", Channel);
  vi.stubGlobal("navigator", { locks: new Locks() });
  vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "visible" }));
  vi.stubGlobal("addEventListener", nothing.addEventListener.bind(nothing));
  vi.stubGlobal("removeEventListener", nothing.removeEventListener.bind(nothing));
  vi.stubGlobal(
    "WebSocket",
    class {
      close() {}
    },
  );
}

/** Puts the tab that was opened as the n-th of those that are open to sleep; returns what wakes it up. */
export function sleep(n: number): () => void {
  const channel = [...Channel.all][n] as Channel;
  const came: unknown[] = [];
  channel.asleep = came;
  return () => {
    channel.asleep = undefined;
    for (const data of came) channel.onmessage?.({ data } as MessageEvent);
  };
}
