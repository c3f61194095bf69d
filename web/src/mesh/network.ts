// What a page can know of its network: when it may have changed, and when the machine was asleep.

/** A gap between two beats after which the machine must have been asleep, in ms. */
const asleep = 3_000;

/** Where the news comes from: the browser's own objects, or a test's. */
export interface NetworkSources {
  readonly window: Pick<EventTarget, "addEventListener" | "removeEventListener">;
  readonly document: Pick<EventTarget, "addEventListener" | "removeEventListener"> & {
    readonly visibilityState: string;
  };
  /** The Network Information API, where the browser has it. */
  readonly connection: Pick<EventTarget, "addEventListener" | "removeEventListener"> | undefined;
  /** The clock on the wall, in ms. */
  now(): number;
}

/** Those of this page. */
export function pageSources(): NetworkSources {
  const { connection } = navigator as Navigator & { readonly connection?: EventTarget };
  return { window: globalThis, document, connection, now: () => Date.now() };
}

/** Calls `wake` when links and server should be looked at; `moved`: the network is probably another one. */
export class NetworkWatch {
  readonly #from: NetworkSources;
  readonly #wake: (moved: boolean) => void;
  #last: number;

  constructor(from: NetworkSources, wake: (moved: boolean) => void) {
    this.#from = from;
    this.#wake = wake;
    this.#last = from.now();
  }

  start(): void {
    const { window, document, connection, now } = this.#from;
    this.#last = now();
    window.addEventListener("online", this.#moved);
    window.addEventListener("pageshow", this.#shown);
    document.addEventListener("visibilitychange", this.#visible);
    connection?.addEventListener("change", this.#moved);
  }

  stop(): void {
    const { window, document, connection } = this.#from;
    window.removeEventListener("online", this.#moved);
    window.removeEventListener("pageshow", this.#shown);
    document.removeEventListener("visibilitychange", this.#visible);
    connection?.removeEventListener("change", this.#moved);
  }

  /** To be called several times a second. A hidden page is called less often, and its gaps mean nothing. */
  beat(): void {
    const now = this.#from.now();
    const gap = now - this.#last;
    this.#last = now;
    if (gap > asleep && this.#from.document.visibilityState === "visible") this.#wake(true);
  }

  readonly #moved = () => this.#wake(true);

  readonly #shown = () => this.#wake(false);

  readonly #visible = () => {
    if (this.#from.document.visibilityState === "visible") this.#wake(false);
  };
}
