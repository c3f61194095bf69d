// Runs a query again whenever its data changed, never two at a time and never more often than a person can see.

/** The least time between the end of one run and the beginning of the next, in ms. */
export const RERUN_PAUSE = 80;

/** The owner of one repeated task. `run` is called at once, and again after each `poke`, coalesced. */
export class Live {
  readonly #run: () => Promise<void>;
  #running = false;
  #dirty = false;
  #stopped = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `run` handles its own errors: it never rejects. */
  constructor(run: () => Promise<void>) {
    this.#run = run;
    void this.#loop();
  }

  /** Something changed: run again, soon. */
  poke(): void {
    this.#dirty = true;
    if (!this.#running && this.#timer === undefined) void this.#loop();
  }

  /** No run begins after this; one that is under way goes on, and whoever started it drops its result. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #loop(): Promise<void> {
    if (this.#stopped) return;
    this.#running = true;
    this.#dirty = false;
    await this.#run();
    this.#running = false;
    if (this.#stopped) return;
    // The pause holds even when nothing is dirty yet: a poke during it waits for its end.
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#dirty) void this.#loop();
    }, RERUN_PAUSE);
  }
}
