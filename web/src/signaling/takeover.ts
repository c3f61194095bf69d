// How often another connection took this page's place in the room, as in Go's pkg/signaling/signalclient/takeover.go.

import { sentenceOf } from "./codes.ts";

/** Bounds the wait after the place was taken, in ms: it doubles with each time, and no joined begins it anew. */
const maxTakeoverWait = 300_000;
/**
 * How long nobody takes the place until the waits begin anew, in ms. It is more than two of the longest, so that of two who take
 * it from each other, neither forgets.
 */
const takeoverMemory = 3 * maxTakeoverWait;
/** How many of them no late join of this page explains. */
const takeoversOfACopy = 3;

/**
 * Counts how often another connection with the same id and token took the place. Once, it is a join of this page that was given up
 * and that reached the server late: nobody is behind it, so the place is taken back. Again and again, it is a copy of this
 * page, as in a cloned machine. Neither is to be left out for good, for the other may end at any time; but they must not
 * take the place from each other without pause.
 */
export class Takeovers {
  #count = 0;
  #last = Number.NEGATIVE_INFINITY; // ms

  /** Counts one. Returns the longest wait before the place is taken back, and what a person is told. `least`: the first wait; all in ms. */
  again(now: number, least: number): { readonly ceiling: number; readonly sentence: string } {
    if (now - this.#last > takeoverMemory) this.#count = 0;
    this.#count++;
    this.#last = now;
    return {
      ceiling: Math.min(maxTakeoverWait, least * 2 ** (this.#count - 1)),
      sentence:
        this.#count < takeoversOfACopy
          ? sentenceOf("replaced")
          : `another copy of this page, as in a cloned machine, seems to have its place in the room (taken ${this.#count} times by now): close one of the two, or reload this page, which gives it a place of its own`,
    };
  }
}
