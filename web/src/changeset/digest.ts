// Digests tell whether two databases hold the same rows. docs/PROTOCOL.md has their layout.

import { sha256 } from "@noble/hashes/sha2";
import { toHex } from "./change.ts";
import { appendValue } from "./pack.ts";
import { KindReal, real, type Value } from "./value.ts";
import { ByteWriter } from "./writer.ts";

// Bounds of digests.

/** Rows that a Part lists; a part of more is given by its children. */
export const MaxPartRows = 64;
/** Bytes of a packed key that a RowSum carries. */
export const MaxKeyShown = 128;
/** Children of a prefix: one for each nibble. */
export const PartChildren = 16;
/** Bytes of a digest, and of a place. */
export const DigestLen = 16;
/** Nibbles of a prefix, so that it has children. */
export const MaxPrefix = 2 * DigestLen - 1;
const maxDepth = 4; // nibbles of the buckets of a DigestTree
const bucketRows = 32; // rows that a bucket should have

/** The digest of a row, or the sum of those of a set of rows: an unsigned number of 128 bits. */
export type Digest = bigint;

/** The 16 bytes of a digest, big-endian. */
export function digestBytes(d: Digest): Uint8Array {
  const out = new Uint8Array(DigestLen);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, d >> 64n);
  view.setBigUint64(8, d & 0xffff_ffff_ffff_ffffn);
  return out;
}

/** The number whose big-endian bytes `b` begins with. */
export function digestOf(b: Uint8Array): Digest {
  const view = new DataView(b.buffer, b.byteOffset, DigestLen);
  return (view.getBigUint64(0) << 64n) | view.getBigUint64(8);
}

/**
 * How many rows a set has, and the sum of their digests modulo 2^128: so their order does not matter, and sets that share
 * no row are added.
 */
export interface Sum {
  readonly count: number;
  readonly digest: Digest;
}

/** The sum of no rows. */
export const noRows: Sum = { count: 0, digest: 0n };

/** The sum of two sets that share no row. */
export function addSums(a: Sum, b: Sum): Sum {
  return { count: a.count + b.count, digest: BigInt.asUintN(128, a.digest + b.digest) };
}

const encoder = new TextEncoder();

/** Makes the digest of one row after the other. */
export class RowHasher {
  readonly #w = new ByteWriter(256);
  readonly #names = new Map<string, Uint8Array>();

  /** Begins a row: its table, packed key and causal length, and whether the table itself holds the row. */
  begin(table: string, pk: Uint8Array, cl: bigint, there: boolean): void {
    const w = this.#w;
    w.clear();
    this.#name(table);
    w.uvarint(pk.length);
    w.bytes(pk);
    w.uvarint(cl);
    w.byte(there ? 1 : 0);
  }

  /**
   * Adds a column. Cells come in bytewise order of their names; the sentinel is none of them, nor has a deleted row any.
   */
  cell(cid: string, version: bigint, v: Value): void {
    this.#name(cid);
    this.#w.uvarint(version);
    // A merge takes -0.0 for equal to 0.0, and leaves each where it is.
    appendValue(this.#w, v.kind === KindReal && v.real === 0 ? real(0) : v);
  }

  /** The row's digest. */
  sum(): Digest {
    return digestOf(sha256(this.#w.view()));
  }

  #name(s: string): void {
    let b = this.#names.get(s);
    if (b === undefined) {
      b = encoder.encode(s);
      this.#names.set(s, b);
    }
    this.#w.uvarint(b.length);
    this.#w.bytes(b);
  }
}

/**
 * The digest of the columns that a table has: `key` is the primary key's in its order, `cells` the others in bytewise order.
 * Rows of two tables are compared only where it is the same.
 */
export function columnsDigest(key: readonly string[], cells: readonly string[]): Digest {
  const w = new ByteWriter();
  w.uvarint(key.length);
  for (const name of [...key, ...cells]) {
    const b = encoder.encode(name);
    w.uvarint(b.length);
    w.bytes(b);
  }
  return digestOf(sha256(w.take()));
}

/**
 * Where a row stands among those of its table: the first 16 bytes of the SHA-256 of its packed key, as 32 hex digits. A
 * prefix of it, of at most MaxPrefix digits, names a part of the table.
 */
export type Place = string;

/** The place of a row by its packed key. */
export function placeOf(pk: Uint8Array): Place {
  return toHex(sha256(pk).subarray(0, DigestLen));
}

/** One row of a Part. */
export interface RowSum {
  readonly place: Place;
  /** Packed; undefined where it has more than MaxKeyShown bytes. */
  readonly key: Uint8Array | undefined;
  /** Causal length. */
  readonly cl: bigint;
  /** Sum of the cells' col_versions, modulo 2^64. */
  readonly versions: bigint;
  readonly digest: Digest;
}

/**
 * What a prefix names: `children`, one Sum for each nibble that may follow, or where it is at most MaxPartRows rows these,
 * in ascending order of their places.
 */
export type Part = { readonly children: readonly Sum[] } | { readonly rows: readonly RowSum[] };

/** The digest of a table. */
export interface TableDigest {
  readonly table: string;
  /** See `columnsDigest`. */
  readonly columns: Digest;
  readonly sum: Sum;
  /** How many rows the table holds beside those that sync knows of: they were written past cr-sqlite. */
  readonly stray: number;
}

/** How many nibbles tell the buckets of a table of so many rows apart. */
export function depthFor(rows: number): number {
  let depth = 0;
  for (let n = bucketRows; n < rows && depth < maxDepth; n *= PartChildren) depth++;
  return depth;
}

/** The digest of a table by places: so fine that most of the way to single rows takes no other look at them. */
export class DigestTree {
  readonly #depth: number;
  readonly #counts: Float64Array;
  readonly #digests: Digest[];

  /** The tree of a table that has about so many rows. */
  constructor(rows: number) {
    this.#depth = depthFor(rows);
    const buckets = PartChildren ** this.#depth;
    this.#counts = new Float64Array(buckets);
    this.#digests = new Array<Digest>(buckets).fill(0n);
  }

  add(place: Place, digest: Digest): void {
    const at = this.#bucket(place);
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.#digests[at] = BigInt.asUintN(128, (this.#digests[at] as Digest) + digest);
  }

  total(): Sum {
    return this.#between(0, this.#counts.length);
  }

  /**
   * The sums below a prefix; undefined where the tree is too coarse to tell, or the rows are so few that they are to be
   * listed.
   */
  children(prefix: string): Sum[] | undefined {
    if (prefix.length >= this.#depth) return undefined;
    const width = PartChildren ** (this.#depth - prefix.length - 1);
    const first = this.#bucket(prefix);
    const out: Sum[] = [];
    for (let i = 0; i < PartChildren; i++) {
      out.push(this.#between(first + i * width, first + (i + 1) * width));
    }
    return out.reduce((n, s) => n + s.count, 0) > MaxPartRows ? out : undefined;
  }

  #bucket(place: string): number {
    return Number.parseInt(place.slice(0, this.#depth).padEnd(this.#depth, "0") || "0", 16);
  }

  #between(first: number, end: number): Sum {
    let sum = noRows;
    for (let i = first; i < end; i++) {
      sum = addSums(sum, { count: this.#counts[i] as number, digest: this.#digests[i] as Digest });
    }
    return sum;
  }
}

interface Gathering {
  readonly children: Sum[];
  readonly rows: RowSum[];
  many: boolean;
}

/** Makes parts of the rows that pass by, in any order. */
export class PartScan {
  readonly #prefixes: readonly string[];
  readonly #lengths: readonly number[]; // of the prefixes, each once
  readonly #by = new Map<string, Gathering>();

  constructor(prefixes: readonly string[]) {
    this.#prefixes = prefixes;
    this.#lengths = [...new Set(prefixes.map((p) => p.length))];
    for (const p of prefixes) {
      this.#by.set(p, { children: new Array<Sum>(PartChildren).fill(noRows), rows: [], many: false });
    }
  }

  /** Whether a row at `place` belongs to one of the parts. */
  wants(place: Place): boolean {
    return this.#lengths.some((n) => this.#by.has(place.slice(0, n)));
  }

  /** Adds a row. It keeps its key as it is, where that is short. */
  add(r: RowSum): void {
    const row = r.key && r.key.length > MaxKeyShown ? { ...r, key: undefined } : r;
    for (const n of this.#lengths) {
      const g = this.#by.get(r.place.slice(0, n));
      if (!g) continue;
      const child = Number.parseInt(r.place.charAt(n), 16);
      g.children[child] = addSums(g.children[child] as Sum, { count: 1, digest: r.digest });
      if (g.rows.length === MaxPartRows) g.many = true;
      else g.rows.push(row);
    }
  }

  /** The parts, in the order of the prefixes. */
  parts(): Part[] {
    return this.#prefixes.map((p) => {
      const g = this.#by.get(p) as Gathering;
      if (g.many) return { children: g.children };
      return { rows: g.rows.sort((a, b) => (a.place < b.place ? -1 : 1)) };
    });
  }
}
