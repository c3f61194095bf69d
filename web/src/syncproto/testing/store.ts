// A model of a database with the log, vector and resume tables of the sync protocol, in memory: Go's pkg/mesh/meshtest.
// A cell is a key and an integer; the larger (version, value) wins.

import type { Change } from "../../changeset/change.ts";
import { pack, parseCanonical } from "../../changeset/pack.ts";
import {
  compareBytes,
  decodeText,
  integer,
  KindInteger,
  KindText,
  textString,
  valueSize,
} from "../../changeset/value.ts";
import {
  type ApplyRequest,
  type ApplyResult,
  DecideHold,
  DecideSend,
  DecideSkip,
  DecideStop,
  type Entry,
  type ReadRequest,
  type ReadResult,
} from "../ops.ts";
import { comparePositions, EntryEnd, type Position, type SiteID } from "../vector.ts";

/** A key's state, which replicas that are in sync agree on. */
export interface Cell {
  readonly version: number;
  readonly value: number;
}

/** Whether `c` is `o` or beats it. */
export function beats(c: Cell, o: Cell): boolean {
  return c.version > o.version || (c.version === o.version && c.value >= o.value);
}

/** A key and the value that a commit gives it. */
export interface Write {
  readonly key: string;
  readonly value: number;
}

interface StoredCell extends Cell {
  readonly seq: bigint;
  readonly l: number;
  readonly site: SiteID;
}

interface StoredEntry {
  readonly origin: SiteID;
  readonly version: number;
  readonly keys: Set<string>;
}

const never: Cell = { version: 0, value: 0 };

/** The key and the cell of a change that a store made. */
export function keyOf(ch: Change): { key: string; cell: Cell } {
  const value = ch.val.kind === KindInteger ? Number(ch.val.int) : 0;
  const [key] = parseCanonical(ch.pk);
  return {
    key: key?.kind === KindText ? decodeText(key.bytes) : "",
    cell: { version: Number(ch.colVersion), value },
  };
}

export class ModelStore {
  readonly site: SiteID;
  readonly vector = new Map<SiteID, number>();
  readonly resume = new Map<SiteID, number>();
  own = 0;
  readonly #cells = new Map<string, StoredCell>();
  readonly #entries = new Map<number, StoredEntry>();
  readonly #order: number[] = []; // of entries, ascending; may name ones that are gone
  #last = 0; // highest local version ever used

  constructor(site: SiteID) {
    this.site = site;
  }

  /** The highest local version that has rows. */
  get newest(): number {
    return this.#order.findLast((l) => this.#entries.has(l)) ?? 0;
  }

  /** Writes one transaction. Every two neighbouring keys share a sequence number. */
  commit(writes: readonly Write[]): void {
    this.own = ++this.#last;
    writes.forEach(({ key, value }, i) => {
      const version = this.cellOf(key).version + 1;
      const seq = BigInt(Math.floor(i / 2));
      this.#put(key, { version, value, seq, l: this.#last, site: this.site }, this.site, this.#last);
    });
  }

  cells(): Map<string, Cell> {
    return new Map([...this.#cells].map(([key, { version, value }]) => [key, { version, value }]));
  }

  cellOf(key: string): Cell {
    return this.#cells.get(key) ?? never;
  }

  apply(r: ApplyRequest): ApplyResult {
    const ls: number[] = [];
    const changed: number[] = [];
    for (const g of r.groups) {
      const l = this.#last + 1;
      let n = 0;
      for (const ch of g.changes) {
        const { key, cell } = keyOf(ch);
        if (beats(this.cellOf(key), cell)) continue;
        this.#put(key, { ...cell, seq: ch.seq, l, site: ch.site }, g.origin, g.version);
        n++;
      }
      if (n > 0) this.#last = l;
      ls.push(n > 0 ? l : 0);
      changed.push(n);
    }
    for (const [site, version] of r.claims) {
      this.vector.set(site, Math.max(this.vector.get(site) ?? 0, version));
    }
    for (const [site, reached] of r.resume) this.resume.set(site, reached);
    return { id: r.id, ls, changed, parked: undefined, own: this.own, newest: this.newest };
  }

  // Stores a cell, moving its key from its entry to the one of c.l.
  #put(key: string, c: StoredCell, origin: SiteID, version: number): void {
    const old = this.#cells.get(key);
    if (old && old.l !== c.l) {
      const e = this.#entries.get(old.l);
      e?.keys.delete(key);
      if (e?.keys.size === 0) this.#entries.delete(old.l);
    }
    this.#cells.set(key, c);
    let e = this.#entries.get(c.l);
    if (!e) {
      e = { origin, version, keys: new Set() };
      this.#entries.set(c.l, e);
      this.#order.push(c.l);
    }
    e.keys.add(key);
  }

  read(r: ReadRequest): ReadResult {
    const entries: Entry[] = [];
    let next = r.after;
    const remaining = r.count ? this.#count(r.after) : 0;
    const result = (end: boolean): ReadResult => {
      const { own, newest } = this;
      return { id: r.id, link: r.link, entries, next, end, own, newest, remaining };
    };
    let bytes = 0;
    let changes = 0;
    for (const l of this.#order) {
      const e = this.#entries.get(l);
      if (!e || l < r.after.l || (l === r.after.l && r.after.seq === EntryEnd)) continue;
      if (r.only && !r.only.includes(l)) continue;
      const decision = r.decide(e.origin, e.version);
      if (decision === DecideStop) return result(false);
      const out: Change[] = [];
      const held = decision === DecideHold;
      const entry = { l, origin: e.origin, version: e.version, changes: out, held };
      if (decision === DecideSend) {
        for (const run of this.#runs(l, e, r.after)) {
          const size = run.reduce((n, ch) => n + ch.pk.length + valueSize(ch.val) + 16, 0);
          if (changes > 0 && (changes + run.length > r.maxChanges || bytes + size > r.maxBytes)) {
            if (out.length > 0) entries.push(entry);
            return result(false);
          }
          out.push(...run);
          changes += run.length;
          bytes += size;
          next = { l, seq: run[0]?.seq ?? 0n };
        }
      }
      if (decision !== DecideSkip && (held || out.length > 0)) entries.push(entry);
      next = { l, seq: EntryEnd };
    }
    return result(true);
  }

  // The changes of an entry behind after, in runs of equal sequence numbers.
  #runs(l: number, e: StoredEntry, after: Position): Change[][] {
    const changes: Change[] = [];
    for (const key of e.keys) {
      const c = this.#cells.get(key) as StoredCell;
      if (comparePositions(after, { l, seq: c.seq }) < 0) changes.push(changeOf(key, c));
    }
    changes.sort((a, b) => Number(a.seq - b.seq) || compareBytes(a.pk, b.pk));
    const runs: Change[][] = [];
    for (const ch of changes) {
      const run = runs.at(-1);
      if (run?.[0]?.seq === ch.seq) run.push(ch);
      else runs.push([ch]);
    }
    return runs;
  }

  #count(after: Position): number {
    let n = 0;
    for (const c of this.#cells.values()) if (comparePositions(after, c) < 0) n++;
    return n;
  }
}

function changeOf(key: string, c: StoredCell): Change {
  return {
    table: "t",
    pk: pack([textString(key)]),
    cid: "v",
    val: integer(c.value),
    colVersion: BigInt(c.version),
    dbVersion: c.l,
    site: c.site,
    cl: 1n,
    seq: c.seq,
  };
}
