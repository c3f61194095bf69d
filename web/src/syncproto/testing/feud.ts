// The story that a renewal is made for: Go's pkg/mesh/meshtest/feud.go.

import type { Peer } from "./network.ts";
import { aloneSteps, type Misfortunes, type Stage } from "./rollback.ts";
import type { ModelStore } from "./store.ts";

/** The phases, each named by who meet in it. */
type Phase =
  | "first and witness"
  | "other and friend"
  | "other and witness"
  | "renewed and friend"
  | "friend and witness";

/**
 * Two files write different things under the same numbers; witness hears of those of the first file, friend of those of the other
 * one, and nobody else of either. Then the other file meets witness, and is told to take a new site. Next it meets friend, who
 * knows its writes already, and at last friend meets witness.
 */
export class Feud {
  readonly #stage: Stage;
  readonly #misfortunes: Misfortunes;
  readonly #first: Peer;
  readonly #other: Peer; // the first one itself, if that is put back
  readonly #witness: Peer;
  readonly #friend: Peer;
  readonly #saved: ModelStore | undefined; // that other is put back to; undefined: it is a twin
  readonly #hasty: () => boolean; // whether a phase begins with all that the two have to say
  #phase: Phase = "first and witness";
  #till = 0; // the step at which the phase ends in any case
  #keys: [string, string] = ["", ""]; // that the first file and the other one wrote to under such numbers; "": it has not
  over = false;

  private constructor(
    stage: Stage,
    misfortunes: Misfortunes,
    peers: readonly [Peer, Peer, Peer, Peer],
    saved: ModelStore | undefined,
    hasty: () => boolean,
  ) {
    this.#stage = stage;
    this.#misfortunes = misfortunes;
    [this.#first, this.#other, this.#witness, this.#friend] = peers;
    this.#saved = saved;
    this.#hasty = hasty;
  }

  /** Begins one about a peer's site; undefined: there are too many peers already. */
  static begin(
    stage: Stage,
    misfortunes: Misfortunes,
    p: Peer,
    witness: Peer,
    friend: Peer,
    toss: () => boolean,
  ): Feud | undefined {
    const saved = toss() ? p.store.copy() : undefined;
    const other = saved ? p : misfortunes.twin(p);
    if (!other) return undefined;
    const f = new Feud(stage, misfortunes, [p, other, witness, friend], saved, toss);
    if (!saved) f.#keys[1] = f.#commit(other);
    for (let n = toss() ? 3 : 2; n > 0; n--) f.#keys[0] = f.#commit(p); // more than other, or witness would not notice
    f.#begin("first and witness");
    return f;
  }

  quarrels(p: Peer): boolean {
    return p === this.#first || p === this.#other || p === this.#witness || p === this.#friend;
  }

  /** Brings it to its next phase, if it is time for that, and tells whether it did. */
  goOn(): boolean {
    const late = this.#stage.now() > this.#till;
    const next = this.#next(late);
    if (next) this.#begin(next);
    else if (late) this.over = true;
    return next !== undefined;
  }

  #next(late: boolean): Phase | undefined {
    switch (this.#phase) {
      case "first and witness":
        return this.#witnessed() ? "other and friend" : undefined;
      case "other and friend":
        this.#misfortunes.befriend(this.#other, this.#friend);
        return late || knows(this.#friend, this.#keys[1]) ? "other and witness" : undefined;
      case "other and witness":
        return this.#misfortunes.doubts(this.#other) && !late ? undefined : "renewed and friend";
      case "renewed and friend":
        if (!late) return undefined;
        if (!this.#misfortunes.doubts(this.#other)) this.#misfortunes.tally.feuds++;
        return "friend and witness";
      case "friend and witness":
        return undefined;
    }
  }

  // Whether witness has heard of what the first file wrote; then, if it is one that is put back, that happens.
  #witnessed(): boolean {
    if (!this.#saved) return knows(this.#witness, this.#keys[0]);
    if ((this.#witness.store.vector.get(this.#first.store.site) ?? 0) <= this.#saved.last + 1) return false;
    this.#misfortunes.putBack(this.#first, this.#saved);
    this.#keys[1] = this.#commit(this.#other);
    return true;
  }

  // Lets those meet whose turn it is, and nobody else of the feud anybody.
  #begin(phase: Phase): void {
    this.#phase = phase;
    this.#till = this.#stage.now() + aloneSteps;
    const [a, b] = this.#meeting();
    this.#misfortunes.pair(a, b, [this.#first, this.#other, this.#witness, this.#friend], this.#till);
    if (this.#hasty()) this.#stage.net.converse(a, b);
  }

  #meeting(): [Peer, Peer] {
    switch (this.#phase) {
      case "first and witness":
        return [this.#first, this.#witness];
      case "other and witness":
        return [this.#other, this.#witness];
      case "friend and witness":
        return [this.#friend, this.#witness];
      default:
        return [this.#other, this.#friend];
    }
  }

  // Lets a peer write. Returns the key that nobody else writes to; "" if the numbers are not in doubt, or not yet.
  #commit(p: Peer): string {
    this.#stage.commit(p);
    return this.#misfortunes.doubts(p) ? this.#misfortunes.lastKey : "";
  }
}

function knows(p: Peer, key: string): boolean {
  return key !== "" && p.store.cellOf(key).version > 0;
}
