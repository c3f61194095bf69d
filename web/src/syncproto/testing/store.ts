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
  origin: SiteID;
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
  site: SiteID;
  /** Own versions above it may be in use elsewhere. */
  opened = 0;
  readonly vector = new Map<SiteID, number>();
  readonly resume = new Map<SiteID, number>();
  /** A key whose changes `apply` refuses. */
  refuses: string | undefined;
  #own = 0; // highest own version that anybody was told of
  readonly #cells = new Map<string, StoredCell>();
  readonly #entries = new Map<number, StoredEntry>();
  readonly #order: number[] = []; // of entries, ascending; may name ones that are gone
  #last = 0; // highest local version ever used

  constructor(site: SiteID) {
    this.site = site;
  }

  /** What a backup of the store holds, or a machine that was made of one: nothing shows that it is one. */
  copy(): ModelStore {
    const copy = new ModelStore(this.site);
    for (const [key, cell] of this.#cells) copy.#cells.set(key, cell);
    for (const [l, e] of this.#entries) copy.#entries.set(l, { ...e, keys: new Set(e.keys) });
    copy.#order.push(...this.#order);
    [copy.#last, copy.#own, copy.opened] = [this.#last, this.#own, this.#last];
    for (const [site, version] of this.vector) copy.vector.set(site, version);
    for (const [site, reached] of this.resume) copy.resume.set(site, reached);
    return copy;
  }

  /**
   * Gives the store a new site id. Own entries above the version at which it was opened are written anew, with versions that
   * beat the old ones; unless `again` is false, which is wrong: then they only get another origin. Returns what is now under
   * the new site.
   */
  renew(site: SiteID, again: boolean): { version: number; cells: Map<string, Cell> }[] {
    const old = this.site;
    let certain = Math.min(this.#own, this.opened);
    [this.site, this.#own] = [site, 0];
    this.resume.clear();
    const commits: { version: number; cells: Map<string, Cell> }[] = [];
    const cellsOf = (keys: Iterable<string>) =>
      new Map([...keys].map((key) => [key, plain(this.cellOf(key))]));
    const doubtful = new Set<string>();
    for (const l of this.#order) {
      const e = this.#entries.get(l);
      if (!e || e.origin !== old || e.version !== l) continue;
      if (l <= this.opened) {
        certain = Math.max(certain, l);
        continue;
      }
      e.origin = site;
      if (again) {
        for (const key of e.keys) doubtful.add(key);
        continue;
      }
      commits.push({ version: l, cells: cellsOf(e.keys) });
      this.#own = l;
    }
    if (doubtful.size > 0) {
      const l = ++this.#last;
      this.#own = l;
      for (const key of doubtful) {
        const { version, value } = this.cellOf(key);
        this.#put(key, { version: version + 1, value, seq: 0n, l, site }, site, l);
      }
      commits.push({ version: l, cells: cellsOf(doubtful) });
    }
    if (certain > 0) this.vector.set(old, Math.max(this.vector.get(old) ?? 0, certain));
    this.opened = this.#last;
    return commits;
  }

  /** The highest local version ever used. */
  get last(): number {
    return this.#last;
  }

  /**
   * The highest own version that has rows, or was told before. One whose rows were all beaten before anybody asked stays
   * unknown, as in a real database.
   */
  get own(): number {
    const found = this.#order.findLast((l) => this.#entries.get(l)?.origin === this.site) ?? 0;
    this.#own = Math.max(this.#own, found);
    return this.#own;
  }

  /** The highest local version that has rows. */
  get newest(): number {
    return this.#order.findLast((l) => this.#entries.has(l)) ?? 0;
  }

  /** Writes one transaction. Every two neighbouring keys share a sequence number. */
  commit(writes: readonly Write[]): void {
    this.#last++;
    writes.forEach(({ key, value }, i) => {
      const version = this.cellOf(key).version + 1;
      const seq = BigInt(Math.floor(i / 2));
      this.#put(key, { version, value, seq, l: this.#last, site: this.site }, this.site, this.#last);
    });
  }

  cells(): Map<string, Cell> {
    return new Map([...this.#cells].map(([key, cell]) => [key, plain(cell)]));
  }

  cellOf(key: string): Cell {
    return this.#cells.get(key) ?? never;
  }

  apply(r: ApplyRequest): ApplyResult {
    const group = r.groups.findIndex((g) => g.changes.some((ch) => keyOf(ch).key === this.refuses));
    if (group >= 0) {
      const refused = { group, reason: "no room for it" };
      return {
        id: r.id,
        ls: [],
        changed: [],
        parked: undefined,
        own: this.own,
        newest: this.newest,
        refused,
      };
    }
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

function plain({ version, value }: Cell): Cell {
  return { version, value };
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
