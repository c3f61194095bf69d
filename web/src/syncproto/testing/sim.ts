// Random runs of the protocol over simulated peers with seeded faults, at least as hard as Go's pkg/mesh/meshtest.

import type { SiteID } from "../vector.ts";
import { type Conn, type End, Network, otherEnd, type Peer } from "./network.ts";
import { type Commit, Misfortunes } from "./rollback.ts";
import { beats, type ModelStore, type Write } from "./store.ts";
import { quietTicks, settleTicks } from "./trace.ts";
import { applyMutations, mutations, type Variant } from "./variants.ts";

/** How many peers a run has at most; one run in largeRooms may have more than six. */
const maxPeers = 40;
const largeRooms = 25;
const maxNames = 60; // peers that there ever are in a run: a name is one printable letter
const splitSteps = 250; // a split lasts for so many steps at most

/** How often each thing happened in runs that a simulation means to try; see Go's Tally. */
export type Tally = Record<string, number>;

/**
 * One random run. Returns what it did, and throws what went wrong. After every step each write within a peer's vector must be
 * covered by that peer, and each own one whatever the vector says. In the end, once all can reach each other and time has
 * passed, replicas and vectors must be equal, and nothing may be said any more.
 */
export function simulate(seed: number, variant?: Variant): Tally {
  return new Sim(seed, variant).run();
}

class Sim {
  readonly #net = new Network();
  readonly #random: () => number;
  readonly #history = new Map<SiteID, Commit[]>();
  readonly #checked = new Map<Peer, Map<SiteID, number>>(); // writes of a site known to be covered since the peer was started
  readonly #slow = new Set<Conn>();
  readonly #keys: number;
  readonly #delay: number; // how often a request is left waiting
  readonly #lazy: number; // how often a core is left alone after a call
  readonly #slowness: number; // how many connections are slow
  readonly #faults: number;
  readonly #readers: boolean;
  readonly #splits: boolean;
  readonly #churn: boolean; // peers come and go
  readonly #misfortunes: Misfortunes;
  readonly #variant: Variant | undefined;
  readonly #tally: Tally = { cuts: 0, splits: 0, crashes: 0, joined: 0, left: 0 };
  readonly #before = new Map<Peer, ModelStore>(); // of the last commit; only for a crash that takes one back
  #now = 0; // the step
  #names = 0; // that were given away
  #side = new Map<Peer, boolean>(); // of the last split
  #splitTill = 0;

  constructor(seed: number, variant: Variant | undefined) {
    this.#random = generator(seed);
    this.#variant = variant;
    this.#net.mutate = variant && mutations[variant];
    this.#net.mutateApply = variant && applyMutations[variant];
    this.#net.chunk = this.#pick([0, 0, 1, 2, 3]);
    this.#keys = 1 + this.#int(12);
    this.#delay = this.#pick([0, 0.3, 0.7]);
    this.#lazy = this.#pick([0, 0.3, 0.7]);
    this.#slowness = this.#pick([0, 0.3, 0.6]);
    this.#readers = this.#int(4) === 0;
    this.#splits = this.#int(3) === 0;
    this.#churn = this.#int(3) === 0;
    let n = 2 + this.#int(5);
    if (this.#int(largeRooms) === 0) n += this.#int(maxPeers - n + 1);
    for (let i = 0; i < n; i++) this.#join(!this.#readers || i < 2 || this.#int(2) === 0);
    this.#faults = this.#pick([0.02, 0.08, 0.2]);
    const relogs = variant === "a renewal that writes nothing anew";
    const stage = {
      net: this.#net,
      history: this.#history,
      checked: this.#checked,
      commit: (p: Peer) => this.#commit(p),
      connect: (p: Peer, q: Peer) => this.#connect(p, q),
      now: () => this.#now,
      name: () => this.#name(),
      mayMeet: (p: Peer, q: Peer) => this.#mayMeet(p, q),
      unite: (p: Peer, q: Peer) => this.#side.set(q, this.#side.get(p) ?? false),
    };
    this.#misfortunes = new Misfortunes(stage, generator(~seed), this.#often(seed, variant), !relogs);
    this.#net.copies = this.#misfortunes.often > 0;
  }

  // How often a machine has a misfortune: in a third of the runs, but not in those that are to notice something else.
  #often(seed: number, variant: Variant | undefined): number {
    if (variant === "a renewal that writes nothing anew") return 0.03;
    return variant === undefined && seed % 3 === 0 ? (seed % 2 === 0 ? 0.01 : 0.03) : 0;
  }

  run(): Tally {
    for (let steps = 100 + this.#int(900); steps > 0; steps--) {
      this.#now++;
      const p = this.#misfortunes.happen() ? undefined : this.#step();
      if (p && this.#random() >= this.#lazy) this.#net.pump(p);
      this.#misfortunes.renew();
      this.#check();
    }
    this.#stabilize();
    return { ...this.#tally, ...this.#net.tally, ...this.#misfortunes.tally };
  }

  // Does one random thing; returns whose core was called.
  #step(): Peer | undefined {
    const p = this.#pick(this.#net.peers);
    if (this.#random() < this.#faults) return this.#fault(p);
    const what = this.#int(12);
    if (what === 0) this.#commit(p);
    else if (what === 1) p.core.tick();
    else return what < 7 ? this.#answer() : this.#deliver();
    return p;
  }

  #answer(): Peer | undefined {
    for (const p of this.#around(this.#net.peers)) {
      if (p.committed && this.#int(2) === 0) p.notify();
      else if (p.pending === 0) continue;
      else if (this.#random() < this.#delay) p.carryOut(this.#int(p.pending));
      else p.answer(this.#int(p.pending));
      return p;
    }
    return undefined;
  }

  // Delivers a message of some connection; one of a slow connection not always.
  #deliver(): Peer | undefined {
    const from = this.#int(2) as End;
    for (const c of this.#around(this.#net.conns)) {
      if (c.queues[from].length === 0 || (this.#slow.has(c) && this.#int(20) !== 0)) continue;
      this.#net.deliver(c, from);
      return c.ends[otherEnd(from)];
    }
    return undefined;
  }

  // Cuts a connection, for good or to make it anew at once, makes one, crashes a peer, splits the room, or lets a peer go for good
  // or another one come.
  #fault(p: Peer): Peer | undefined {
    const q = this.#pick(this.#net.peers);
    const r = this.#int(23);
    if (r === 0) {
      // A machine that was put back is not started again before it met somebody who knows.
      if (!this.#misfortunes.doubts(p)) this.#crash(p);
    } else if (r < 9 && this.#net.conns.length > 0) {
      const c = this.#pick(this.#net.conns);
      this.#net.cut(c);
      this.#did("cuts");
      if (r < 7 && this.#mayMeet(...c.ends)) this.#connect(...c.ends);
    } else if (r === 9 && this.#splits) {
      this.#split();
    } else if (r === 10 && this.#churn) {
      this.#comeOrGo(p);
      return undefined;
    } else if (r >= 9 && p !== q && !this.#net.find(p, q) && this.#mayMeet(p, q)) {
      this.#connect(p, q);
    }
    return p;
  }

  // Ends a peer, and starts it again.
  #crash(p: Peer): void {
    this.#did("crashes");
    this.#net.crash(p, () => {
      const before = this.#before.get(p);
      if (this.#variant === "a crash that takes a commit back" && before) p.store = before.copy();
      if (this.#variant !== "claims that are stored before their rows" || !p.apply || p.apply.result) return;
      p.store.apply({ ...p.apply.request, groups: [] });
    });
    this.#before.delete(p);
    this.#checked.delete(p);
  }

  // Adds a peer with an empty database.
  #join(writer: boolean): void {
    this.#net.add(this.#name() as string, writer);
  }

  // A name that nobody has had; undefined: there is none left.
  #name(): string | undefined {
    return this.#names < maxNames ? String.fromCharCode(65 + this.#names++) : undefined;
  }

  // Lets a new peer come, or one go for good, with all that nobody else has. Readers pass nothing on: where there are some, writers
  // stay, as what only readers hold gets to nobody.
  #comeOrGo(p: Peer): void {
    const { peers } = this.#net;
    if (this.#int(2) === 0) {
      if (this.#names === maxNames || peers.length === maxPeers) return;
      this.#did("joined");
      this.#join(!this.#readers || this.#int(2) === 0);
    } else if (peers.length > 2 && !(this.#readers && p.writer) && !this.#misfortunes.quarrels(p)) {
      this.#did("left");
      this.#net.remove(p);
      this.#checked.delete(p);
      this.#misfortunes.forget(p);
    }
  }

  // Divides the room in two for a while.
  #split(): void {
    if (this.#now < this.#splitTill) return;
    this.#did("splits");
    this.#splitTill = this.#now + 1 + this.#int(splitSteps);
    this.#side = new Map(this.#net.peers.map((p) => [p, this.#int(2) === 0]));
    this.#net.cutUnless((p, q) => this.#mayMeet(p, q));
  }

  // Whether two peers are not kept apart.
  #mayMeet(p: Peer, q: Peer): boolean {
    const side = (x: Peer) => this.#side.get(x) ?? false;
    if (this.#now < this.#splitTill && side(p) !== side(q)) return false;
    return this.#misfortunes.mayMeet(p, q);
  }

  #did(what: string): void {
    this.#tally[what] = (this.#tally[what] ?? 0) + 1;
  }

  #connect(p: Peer, q: Peer): void {
    const c = this.#net.connect(p, q);
    if (this.#random() < this.#slowness) this.#slow.add(c);
  }

  #commit(p: Peer): void {
    if (!p.writer) return;
    const keys = Array.from({ length: this.#keys }, (_, i) => `k${i}`);
    const writes: Write[] = [];
    for (let n = 1 + this.#int(this.#keys); n > 0; n--) {
      const [key = ""] = keys.splice(this.#int(keys.length), 1);
      writes.push({ key, value: this.#int(6) });
    }
    const doubts = this.#misfortunes.doubts(p);
    if (this.#variant === "a crash that takes a commit back") this.#before.set(p, p.store.copy());
    if (doubts) writes.push({ key: this.#misfortunes.ownKey(), value: 1 });
    p.commit(writes);
    const cells = new Map(writes.map(({ key }) => [key, p.store.cellOf(key)]));
    if (doubts) {
      this.#misfortunes.doubt(p.store.site, { version: p.store.last, cells });
      return;
    }
    const history = this.#history.get(p.store.site) ?? [];
    history.push({ version: p.store.last, cells });
    this.#history.set(p.store.site, history);
  }

  // The invariant: what a peer's vector says is so, in its core as in its store, and what it wrote it holds.
  #check(): void {
    if (this.#net.errors.length > 0) throw new Error(this.#net.errors.join("; "));
    for (const p of this.#net.peers) {
      const checked = this.#checked.get(p) ?? new Map<SiteID, number>();
      this.#checked.set(p, checked);
      const core = p.core.vector();
      for (const [site, commits] of this.#history) {
        const claimed = Math.max(core.get(site) ?? 0, p.store.vector.get(site) ?? 0);
        const own = site === p.store.site;
        let n = checked.get(site) ?? 0;
        for (let w = commits[n]; w && (own || w.version <= claimed); w = commits[++n]) {
          for (const [key, cell] of w.cells) {
            if (beats(p.store.cellOf(key), cell) || this.#misfortunes.beaten(key, cell, w.anew ?? false))
              continue;
            throw new Error(
              own
                ? `${p.name} lacks ${key} of version ${w.version}, which it wrote itself`
                : `${p.name} claims version ${claimed} of ${site} and lacks ${key} of ${w.version}`,
            );
          }
        }
        checked.set(site, n);
      }
    }
  }

  // Asserts what must be so once all can reach each other and everything has come to rest.
  #stabilize(): void {
    const mesh = this.#readers || this.#int(3) > 0 || this.#net.copies;
    this.#rest(mesh);
    this.#check();
    const { peers } = this.#net;
    const [first] = peers;
    // Of peers that have left: what the first one heard of them.
    const told = new Map<SiteID, number | undefined>();
    for (const site of this.#history.keys()) told.set(site, first?.core.status().vector.get(site));
    for (const { store } of peers) told.set(store.site, store.own === 0 ? undefined : store.own);
    const keys = new Set(peers.flatMap((p) => [...p.store.cells().keys()]));
    for (const p of peers) {
      for (const key of keys) {
        const [got, want] = [p.store.cellOf(key), first?.store.cellOf(key)];
        if (got.version === want?.version && got.value === want.value) continue;
        if (this.#misfortunes.doubtfulOnly(key)) continue;
        throw new Error(
          `in the end ${key} of ${p.name} is ${JSON.stringify(got)}, of ${first?.name} ${JSON.stringify(want)}`,
        );
      }
      const status = p.core.status();
      for (const [site, last] of told) {
        if (this.#misfortunes.sites.has(site)) continue;
        const version = status.vector.get(site);
        if (version !== last)
          throw new Error(`in the end ${p.name} covers ${version} of ${site}, not ${last}`);
      }
      if (!status.synced) throw new Error(`in the end ${p.name} is not synced`);
    }
  }

  // Connects all peers, directly or through others, until nothing is said any more: also while some go on under a new site, or
  // take a link from each other, since they have one.
  #rest(mesh: boolean): void {
    const { peers } = this.#net;
    let before = -1;
    for (let rounds = 4 * (peers.length + 1); rounds > 0; rounds--) {
      let missing = 0;
      peers.forEach((p, i) => {
        for (const q of peers.slice(mesh ? 0 : Math.max(i - 1, 0), i)) {
          if (this.#net.find(p, q)) continue;
          this.#net.connect(p, q);
          missing++;
        }
      });
      const { renewals } = this.#misfortunes;
      if (missing === 0 && renewals === before) return;
      before = renewals;
      if (!this.#net.run(quietTicks, settleTicks)) throw new Error("messages are still sent at the end");
      this.#misfortunes.renew();
      if (!this.#net.copies) return;
    }
    throw new Error(`peers go on taking new sites: ${this.#misfortunes.renewals} by now`);
  }

  #int(n: number): number {
    return Math.floor(this.#random() * n);
  }

  #pick<T>(of: readonly T[]): T {
    return of[this.#int(of.length)] as T;
  }

  // All of a list, from a random place on and around.
  #around<T>(of: readonly T[]): T[] {
    const at = this.#int(of.length);
    return [...of.slice(at), ...of.slice(0, at)];
  }
}

// Random numbers from 0 to 1, the same ones for a seed (mulberry32's construction).
function generator(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
