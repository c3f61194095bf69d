// What a cr-sqlite change is made of.

import type { Value } from "./value.ts";

/** The column name of a row's sentinel: a create (odd causal length) or a delete (even). */
export const SentinelCID = "-1";

/** The length of a site id that a database gives itself (a UUIDv4), in bytes. */
export const SiteIDLen = 16;

/**
 * The largest col_version, causal length, seq and db_version that a change may carry, and that is written locally. A
 * number holds it exactly.
 */
export const MaxVersion = Number.MAX_SAFE_INTEGER;

/**
 * Names one database: its site id in lower-case hex, so that it is a map key and orders bytewise. 32 digits for a
 * real site; a row merged by hand may carry fewer, never more.
 */
export type SiteID = string;

/** One row of crsql_changes: one cell, or the sentinel, of one row of one table. */
export interface Change {
  /** The CRR's name. */
  readonly table: string;
  /** Packed primary key, see `pack`. */
  readonly pk: Uint8Array;
  /** Column name, or `SentinelCID`. */
  readonly cid: string;
  /** The cell's value; NULL for a sentinel. */
  readonly val: Value;
  /** Version of the cell; of a sentinel: equal to `cl`. */
  readonly colVersion: bigint;
  /** db_version in the database that it was read from; not carried on the wire (0 there). */
  readonly dbVersion: number;
  /** Originator, kept through any number of hops. */
  readonly site: SiteID;
  /** Causal length of the row: odd alive, even deleted. */
  readonly cl: bigint;
  /** Order within its transaction at the origin, from 0. */
  readonly seq: bigint;
}

/** The lower-case hex of `bytes`. */
export function toHex(bytes: Uint8Array): string {
  let s = "";
  for (const b of bytes) s += (b < 16 ? "0" : "") + b.toString(16);
  return s;
}

/** The bytes of `hex`. Throws a TypeError for anything but an even number of hex digits. */
export function fromHex(hex: string): Uint8Array<ArrayBuffer> {
  if (!/^(?:[0-9a-f]{2})*$/i.test(hex)) throw new TypeError("not an even number of hex digits");
  const out = new Uint8Array(hex.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return out;
}
