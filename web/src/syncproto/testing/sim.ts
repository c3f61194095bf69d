// Random runs of the protocol over simulated peers with seeded faults, at least as hard as Go's pkg/mesh/meshtest.

import type { Changes } from "../message.ts";
import type { SiteID, Vector } from "../vector.ts";
import { emptyVector } from "../vector.ts";
import { type Conn, type End, Network, otherEnd, type Peer } from "./network.ts";
import { beats, type Cell, type Write } from "./store.ts";
import { quietTicks, settleTicks } from "./trace.ts";

/** A way to get the protocol wrong, which a simulation has to notice. */
export type Variant =
  | "no deps"
  | "deps from the vector, not from the log"
  | "resume past held entries"
  | "claims as of sending, not of the read"
  | "claims in the middle of a walk";

const mutations: Record<Variant, (c: Conn, p: Peer, m: Changes) => Changes> = {
  "no deps": (_c, _p, m) => (m.claims ? { ...m, deps: emptyVector } : m),
  "deps from the vector, not from the log": (_c, _p, m) => {
    if (!m.claims || !m.deps) return m;
    const { claims, deps } = m;
    return { ...m, deps: new Map([...deps].filter(([site, version]) => (claims.get(site) ?? 0) >= version)) };
  },
  "resume past held entries": (c, p, m) => {
    return { ...m, reached: Math.max(m.reached, c.walked[c.ends[0] === p ? 0 : 1]) };
  },
  "claims as of sending, not of the read": (_c, p, m) => (m.claims ? { ...m, claims: vectorOf(p) } : m),
  "claims in the middle of a walk": (_c, p, m) =>
    m.claims ? m : { ...m, claims: vectorOf(p), deps: emptyVector },
};

function vectorOf(p: Peer): Vector {
  return p.core.vector();
}

/** A commit, for the invariant. */
interface Commit {
  readonly version: number;
  readonly cells: ReadonlyMap<string, Cell>;
}

/**
 * One random run. Throws what went wrong. After every step each write within a peer's vector must be covered by that
 * peer. In the end, once all can reach each other and time has passed, replicas and vectors must be equal, and nothing
 * may be said any more.
 */
export function simulate(seed: number, variant?: Variant): void {
  new Sim(seed, variant).run();
}

class Sim {
  readonly #net = new Network();
  readonly #random: () => number;
  readonly #history = new Map<SiteID, Commit[]>();
  readonly #checked = new Map<Peer, Map<SiteID, number>>(); // writes of a site known to be covered; that never ends
  readonly #slow = new Set<Conn>();
  readonly #keys: number;
  readonly #delay: number; // how often a request is left waiting
  readonly #lazy: number; // how often a core is left alone after a call
  readonly #slowness: number; // how many connections are slow
  readonly #faults: number;
  readonly #readers: boolean;

  constructor(seed: number, variant: Variant | undefined) {
    this.#random = generator(seed);
    this.#net.mutate = variant && mutations[variant];
    this.#net.chunk = this.#pick([0, 0, 1, 2, 3]);
    this.#keys = 1 + this.#int(12);
    this.#delay = this.#pick([0, 0.3, 0.7]);
    this.#lazy = this.#pick([0, 0.3]);
    this.#slowness = this.#pick([0, 0.3, 0.6]);
    this.#readers = this.#int(4) === 0;
    const n = 2 + this.#int(5);
    for (let i = 0; i < n; i++) {
      this.#net.add(String.fromCharCode(97 + i), !this.#readers || i < 2 || this.#int(2) === 0);
    }
    this.#faults = this.#pick([0.02, 0.08, 0.2]);
  }

  run(): void {
    for (let steps = 100 + this.#int(900); steps > 0; steps--) {
      const p = this.#step();
      if (p && this.#random() >= this.#lazy) this.#net.pump(p);
      this.#check();
    }
    this.#stabilize();
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

  // Cuts a connection, for good or to make it anew at once, makes one, or crashes a peer.
  #fault(p: Peer): Peer {
    const q = this.#pick(this.#net.peers);
    const r = this.#int(20);
    if (r === 0) {
      this.#net.crash(p);
    } else if (r < 9 && this.#net.conns.length > 0) {
      const c = this.#pick(this.#net.conns);
      this.#net.cut(c);
      if (r < 7) this.#connect(...c.ends);
    } else if (r >= 9 && p !== q && !this.#net.find(p, q)) {
      this.#connect(p, q);
    }
    return p;
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
    p.commit(writes);
    const cells = new Map(writes.map(({ key }) => [key, p.store.cellOf(key)]));
    const history = this.#history.get(p.store.site) ?? [];
    history.push({ version: p.store.own, cells });
    this.#history.set(p.store.site, history);
  }

  // The invariant: what a peer's vector says is so, in its core as in its store.
  #check(): void {
    if (this.#net.errors.length > 0) throw new Error(this.#net.errors.join("; "));
    for (const p of this.#net.peers) {
      const checked = this.#checked.get(p) ?? new Map<SiteID, number>();
      this.#checked.set(p, checked);
      const core = vectorOf(p);
      for (const [site, commits] of this.#history) {
        const version = Math.max(core.get(site) ?? 0, p.store.vector.get(site) ?? 0);
        let n = checked.get(site) ?? 0;
        for (let w = commits[n]; w && w.version <= version; w = commits[++n]) {
          for (const [key, cell] of w.cells) {
            if (!beats(p.store.cellOf(key), cell)) {
              throw new Error(
                `${p.name} claims version ${version} of ${site} and lacks ${key} of ${w.version}`,
              );
            }
          }
        }
        checked.set(site, n);
      }
    }
  }

  // Connects all peers, directly or through others; asserts what must be so once everything has come to rest.
  #stabilize(): void {
    const mesh = this.#readers || this.#int(3) > 0;
    const { peers } = this.#net;
    peers.forEach((p, i) => {
      peers.slice(mesh ? 0 : Math.max(i - 1, 0), i).forEach((q) => {
        if (!this.#net.find(p, q)) this.#net.connect(p, q);
      });
    });
    if (!this.#net.run(quietTicks, settleTicks)) throw new Error("messages are still sent at the end");
    this.#check();
    const [first] = peers;
    const want = JSON.stringify(sorted(first?.store.cells() ?? new Map()));
    for (const p of peers) {
      const got = JSON.stringify(sorted(p.store.cells()));
      if (got !== want) throw new Error(`in the end ${p.name} holds ${got}, ${first?.name} ${want}`);
      const status = p.core.status();
      for (const [site, commits] of this.#history) {
        const last = commits.at(-1)?.version;
        const version = status.vector.get(site);
        if (version !== last)
          throw new Error(`in the end ${p.name} covers ${version} of ${site}, not ${last}`);
      }
      if (!status.synced) throw new Error(`in the end ${p.name} is not synced`);
    }
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

function sorted(cells: ReadonlyMap<string, Cell>): [string, Cell][] {
  return [...cells].sort(([a], [b]) => (a < b ? -1 : 1));
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
