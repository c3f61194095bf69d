// The misfortunes of a simulation's machines: they are put back as a whole, and run twice. Go's pkg/mesh/meshtest/rollback.go.

import type { SiteID } from "../vector.ts";
import { Feud } from "./feud.ts";
import type { Network, Peer } from "./network.ts";
import { beats, type Cell, type ModelStore } from "./store.ts";

/** A commit, for the invariant. */
export interface Commit {
  readonly version: number;
  readonly cells: ReadonlyMap<string, Cell>;
  /** By a renewal. */
  readonly anew?: boolean;
}

/** What misfortunes need of a simulation. */
export interface Stage {
  readonly net: Network;
  readonly history: Map<SiteID, Commit[]>;
  /** How many writes of a site are known to be covered. */
  readonly checked: Map<Peer, Map<SiteID, number>>;
  commit(p: Peer): void;
  connect(p: Peer, q: Peer): void;
  /** The step. */
  now(): number;
  /** A name for one more peer; undefined: there is none left. */
  name(): string | undefined;
  /** Whether two peers are not kept apart, by these misfortunes or by others. */
  mayMeet(p: Peer, q: Peer): boolean;
  /** Brings q to the side of a split that p is on. */
  unite(p: Peer, q: Peer): void;
}

/** Steps for which a peer meets nobody but its friend after a misfortune. */
export const aloneSteps = 100;
const maxPeers = 8;

/** Makes misfortunes, and knows what may be missing because of them. */
export class Misfortunes {
  readonly #stage: Stage;
  readonly #random: () => number; // of its own, so that a seed without misfortunes runs as it would anyway
  readonly #again: boolean; // a renewal writes anew what is in doubt
  readonly often: number;
  readonly #saved = new Map<Peer, ModelStore>();
  readonly #at = new Set<Peer>(); // whose own versions may be in use elsewhere
  // What was written under numbers that were used twice. Whoever takes it for covered may lack it, and nobody can tell.
  readonly #doubtful = new Map<string, Cell[]>();
  /** Whose numbers those are. */
  readonly sites = new Set<SiteID>();
  // The one whom a peer meets for some steps after a misfortune, and again once it has a new site: so that what it wrote under
  // numbers in doubt goes by the way of somebody who knows it already.
  readonly #friends = new Map<Peer, Peer>();
  readonly #only = new Map<Peer, Peer>();
  readonly #until = new Map<Peer, number>();
  /** What was written under each number in doubt, by site. */
  readonly #numbers = new Map<SiteID, Commit[]>();
  readonly tally = { putBack: 0, twins: 0, feuds: 0, renewals: 0, parted: 0 };
  #feud: Feud | undefined;
  #keys = 0; // that were written to under such numbers only

  /** `often`: at how many steps, from 0 to 1. */
  constructor(stage: Stage, random: () => number, often: number, again: boolean) {
    this.#stage = stage;
    this.#random = random;
    this.#again = again;
    this.often = often;
  }

  get renewals(): number {
    return this.tally.renewals;
  }

  /** Does something to a machine now and then, and tells whether it did. */
  happen(): boolean {
    if (this.#feud?.goOn()) return true;
    if (this.#feud?.over) this.#feud = undefined;
    if (this.#random() >= this.often) return false;
    const { peers } = this.#stage.net;
    const p = peers[this.#int(peers.length)] as Peer;
    const saved = this.#saved.get(p);
    if (!p.writer || this.quarrels(p)) return false;
    if (this.#int(3) === 0 && this.#beginFeud(p)) return true;
    if (this.#int(2) === 0 || !saved) {
      this.#saved.set(p, p.store.copy());
    } else if (this.#int(3) > 0 || peers.length >= maxPeers) {
      this.putBack(p, saved.copy());
      this.#inDoubt(p);
      return true;
    } else if (!this.#at.has(p)) {
      const q = this.twin(p);
      if (!q) return false;
      this.#inDoubt(p);
      this.#inDoubt(q);
      return true;
    }
    return false;
  }

  // Begins a feud about a peer's site, and tells whether there is anybody to take part in it.
  #beginFeud(p: Peer): boolean {
    const others = this.#stage.net.peers.filter((q) => q !== p && q.writer && !this.#at.has(q));
    if (this.#feud || this.#at.has(p) || others.length < 2) return false;
    const [witness] = others.splice(this.#int(others.length), 1);
    const [friend] = others.splice(this.#int(others.length), 1);
    this.#feud = Feud.begin(this.#stage, this, p, witness as Peer, friend as Peer, () => this.#int(2) === 0);
    return this.#feud !== undefined;
  }

  /** Whether a peer takes part in a feud. */
  quarrels(p: Peer): boolean {
    return this.#feud?.quarrels(p) ?? false;
  }

  /** Forgets a peer that has left. */
  forget(p: Peer): void {
    this.#saved.delete(p);
    for (const [q, friend] of this.#friends) if (friend === p) this.#friends.delete(q);
  }

  /** Whether what a peer writes goes under numbers that may be in use elsewhere. */
  doubts(p: Peer): boolean {
    return this.#at.has(p);
  }

  /** A key that nobody else writes to, so that nothing beats it. */
  ownKey(): string {
    return `x${++this.#keys}`;
  }

  /** The last one of those. */
  get lastKey(): string {
    return `x${this.#keys}`;
  }

  doubt(site: SiteID, commit: Commit): void {
    this.#numbers.set(site, [...(this.#numbers.get(site) ?? []), commit]);
    for (const [key, cell] of commit.cells) {
      this.#doubtful.set(key, [...(this.#doubtful.get(key) ?? []), cell]);
    }
  }

  /**
   * Whether a doubtful write beats the cell, or made the same: then it may be missing where that is missing, because whoever holds
   * that passes on nothing else. What a renewal wrote anew has to be another thing than what it was.
   */
  beaten(key: string, cell: Cell, anew: boolean): boolean {
    return (this.#doubtful.get(key) ?? []).some((d) => beats(d, cell) && !(anew && same(d, cell)));
  }

  /** Whether what peers hold under a key differs only where a doubtful write is the highest. */
  doubtfulOnly(key: string): boolean {
    const { peers } = this.#stage.net;
    const doubtful = this.#doubtful.get(key) ?? [];
    let highest: Cell = { version: 0, value: 0 };
    for (const { store } of peers) {
      const cell = store.cellOf(key);
      if (!doubtful.some((d) => same(d, cell)) && beats(cell, highest)) highest = cell;
    }
    return peers.every((p) => beats(p.store.cellOf(key), highest) || this.beaten(key, highest, true));
  }

  /** Whether two peers are not kept apart by these misfortunes. */
  mayMeet(p: Peer, q: Peer): boolean {
    const now = this.#stage.now();
    const only = (x: Peer) => (now > (this.#until.get(x) ?? 0) ? undefined : this.#only.get(x));
    const [a, b] = [only(p), only(q)];
    return (!a || a === q) && (!b || b === p);
  }

  /** Gives those peers a new site that were told to take one. */
  renew(): void {
    const { net, history } = this.#stage;
    for (const p of net.peers) {
      if (!p.disputed) continue;
      if (this.#parted(p)) this.tally.parted++;
      const site =
        p.name.charCodeAt(0).toString(16).padStart(2, "0") +
        (++this.tally.renewals).toString(16).padStart(30, "0");
      net.crash(p, () => {
        const commits = p.store.renew(site, this.#again);
        if (commits.length === 0) return;
        history.set(
          site,
          commits.map((c) => ({ ...c, anew: true })),
        );
      });
      this.#saved.delete(p);
      this.#stage.checked.delete(p);
      this.#at.delete(p);
      this.#alone(p, this.#friends.get(p));
    }
  }

  // Whether one other peer holds what p wrote under a number that was used twice, and another one takes it for covered and lacks
  // it: what p writes anew then gets to it by way of the first one, who knows it already.
  #parted(p: Peer): boolean {
    const { site } = p.store;
    const others = this.#stage.net.peers.filter((q) => q !== p);
    return (this.#numbers.get(site) ?? []).some(({ version, cells }) =>
      [...cells].some(([key, cell]) => {
        const has = (q: Peer) => same(q.store.cellOf(key), cell);
        if (!key.startsWith("x") || !has(p)) return false;
        return others.some(has) && others.some((q) => !has(q) && (q.store.vector.get(site) ?? 0) >= version);
      }),
    );
  }

  /**
   * Replaces a peer's machine with a backup of it. What others have reached in the walk of the lost time they forget here.
   * Peers do not, unless they had come further than the backup goes: docs/PROTOCOL.md names it among what is not healed.
   */
  putBack(p: Peer, to: ModelStore): void {
    const { net, checked } = this.#stage;
    this.tally.putBack++;
    this.#dispute(p, to);
    for (const q of net.peers) q.store.resume.delete(p.store.site);
    net.crash(p, () => {
      p.store = to;
    });
    checked.delete(p);
  }

  /** Starts a second machine with what the first one's disk holds; undefined: there are too many. */
  twin(p: Peer): Peer | undefined {
    const { net, name } = this.#stage;
    const called = name();
    if (called === undefined) return undefined;
    const to = p.store.copy();
    this.tally.twins++;
    this.#dispute(p, to);
    p.store.opened = to.opened;
    const q = net.add(called, true);
    net.crash(q, () => {
      q.store = to;
    });
    this.#at.add(q);
    return q;
  }

  /** Lets of some peers only two meet, and those nobody else, until a step. */
  pair(a: Peer, b: Peer, of: readonly Peer[], until: number): void {
    const { net, unite, mayMeet, connect } = this.#stage;
    for (const p of of) {
      this.#only.set(p, p);
      this.#until.set(p, until);
    }
    this.#only.set(a, b);
    this.#only.set(b, a);
    unite(a, b);
    net.cutUnless(mayMeet);
    if (!net.find(a, b)) connect(a, b);
  }

  /** Whom a peer meets once it has a new site. */
  befriend(p: Peer, friend: Peer): void {
    this.#friends.set(p, friend);
  }

  // Takes what a peer's site has written since an older state of its store out of the history, as it is in doubt.
  #dispute(p: Peer, to: ModelStore): void {
    const { history, checked } = this.#stage;
    const { site } = p.store;
    this.#at.add(p);
    this.sites.add(site);
    const commits = history.get(site) ?? [];
    const kept = commits.filter((c) => c.version <= to.last);
    for (const c of commits.slice(kept.length)) this.doubt(site, c);
    history.set(site, kept);
    for (const known of checked.values()) known.set(site, Math.min(known.get(site) ?? 0, kept.length));
  }

  // Lets a peer write under numbers that are used twice, and then meet a friend.
  #inDoubt(p: Peer): void {
    const { net, commit } = this.#stage;
    for (let n = this.#int(3); n > 0; n--) commit(p);
    const q = net.peers[this.#int(net.peers.length)] as Peer;
    if (q !== p) this.#alone(p, q);
  }

  // Lets a peer meet nobody but a friend for some steps.
  #alone(p: Peer, friend: Peer | undefined): void {
    if (!friend) return;
    const { net, connect, mayMeet, now } = this.#stage;
    this.#friends.set(p, friend);
    this.#only.set(p, friend);
    this.#until.set(p, now() + aloneSteps);
    if (!net.find(p, friend) && mayMeet(p, friend)) connect(p, friend);
  }

  #int(n: number): number {
    return Math.floor(this.#random() * n);
  }
}

function same(a: Cell, b: Cell): boolean {
  return a.version === b.version && a.value === b.value;
}
