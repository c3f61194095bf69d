// Calls between a page and its Worker, and between tabs: the one mechanism for both.

/** A two-way pipe of structured clones. */
export interface Port {
  /** Sends a message; what is in `transfer` belongs to the other side afterwards, where the pipe can do that. */
  post(message: unknown, transfer: Transferable[]): void;
  /** Names the receiver of messages. Once. */
  listen(receive: (message: unknown) => void): void;
}

/** An error that was thrown on the other side. `name` and `message` are the original's. */
export class RemoteError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}

// biome-ignore lint/suspicious/noExplicitAny: a method takes one argument of whatever type it declares.
type Method = (params: any) => unknown;
/** The names of the methods of an interface. */
type Name<T> = { [K in keyof T]: T[K] extends Method ? K : never }[keyof T] & string;
type Params<T, K extends keyof T> = T[K] extends (params: infer P) => unknown ? P : never;
type Result<T, K extends keyof T> = T[K] extends Method ? Awaited<ReturnType<T[K]>> : never;

type Wire =
  | { readonly call: number; readonly method: string; readonly params: unknown }
  | { readonly reply: number; readonly result: unknown }
  | { readonly reply: number; readonly error: { readonly name: string; readonly message: string } }
  | { readonly note: string; readonly params: unknown };

interface Waiting {
  resolve(result: unknown): void;
  reject(error: Error): void;
}

/** One end of a pipe: answers the calls of the other side with `Local`, and calls its `Remote`. */
export class Rpc<Local extends object, Remote extends object> {
  readonly #port: Port;
  readonly #local: Local;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;
  #ended: Error | undefined;

  constructor(port: Port, local: Local) {
    this.#port = port;
    this.#local = local;
    port.listen((message) => void this.#receive(message as Wire));
  }

  /** Calls a method of the other side. Rejects with a RemoteError, or with the error given to `end`. */
  call<K extends Name<Remote>>(method: K, params: Params<Remote, K>): Promise<Result<Remote, K>> {
    if (this.#ended) return Promise.reject(this.#ended);
    const call = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(call, { resolve: resolve as (result: unknown) => void, reject });
      this.#port.post({ call, method, params } satisfies Wire, []);
    });
  }

  /** Calls a method of the other side without waiting for an answer. */
  note<K extends Name<Remote>>(method: K, params: Params<Remote, K>, transfer: Transferable[] = []): void {
    if (!this.#ended) this.#port.post({ note: method, params } satisfies Wire, transfer);
  }

  /** The other side is gone: everything that waits for it is rejected, and every later call. */
  end(error: Error): void {
    this.#ended = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  async #receive(m: Wire): Promise<void> {
    if (this.#ended) return;
    if ("note" in m) {
      await this.#method(m.note)?.(m.params);
    } else if ("reply" in m) {
      const waiting = this.#waiting.get(m.reply);
      this.#waiting.delete(m.reply);
      if ("error" in m) waiting?.reject(new RemoteError(m.error.name, m.error.message));
      else waiting?.resolve(m.result);
    } else {
      await this.#answer(m.call, m.method, m.params);
    }
  }

  async #answer(call: number, method: string, params: unknown): Promise<void> {
    try {
      const run = this.#method(method);
      if (!run) throw new Error(`the other side does not know ${method}: reload all tabs of this page`);
      const result = await run(params);
      this.#port.post({ reply: call, result } satisfies Wire, []);
    } catch (thrown) {
      const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
      this.#port.post({ reply: call, error: { name, message } } satisfies Wire, []);
    }
  }

  #method(name: string): Method | undefined {
    if (!Object.hasOwn(this.#local, name)) return undefined;
    const method = this.#local[name as keyof Local];
    return typeof method === "function" ? (method as unknown as Method) : undefined;
  }
}

/** A Worker as its page sees it, or the global scope of a Worker. */
export interface Postable {
  postMessage(message: unknown, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

/** The pipe to a Worker, or, in a Worker, to its page. */
export function portOf(side: Postable): Port {
  return {
    post: (message, transfer) => side.postMessage(message, transfer),
    listen: (receive) => {
      side.onmessage = (event) => receive(event.data);
    },
  };
}
