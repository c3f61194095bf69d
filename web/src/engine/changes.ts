// Rows of crsql_changes, or of the parked ones, as changes and back, without a memory allocation for each column:
// small buffers by the hundred thousand keep the garbage collector busier than the engine.

import { type Change, fromHex, type SiteID, toHex } from "../changeset/change.ts";
import type { Statement } from "./sqlite.ts";
import { columnValue } from "./values.ts";

/** The columns that ChangeReader takes, in its order. */
export const CHANGE_COLUMNS = '"table", pk, cid, val, col_version, site_id, cl, seq';

/** Bytes that are allocated at once for keys and values. */
const SLAB = 64 * 1024;

/** Distinct names or sites that a cache holds before it starts anew. */
const MAX_RECENT = 32;

/** Turns current rows into changes. The changes of one reader share memory; they are for passing on, not for keeping. */
export class ChangeReader {
  readonly #names = new Recent((bytes) => decoder.decode(bytes));
  readonly #sites = new Recent(toHex);
  #slab = new Uint8Array(0);
  #pk = new Uint8Array(0);

  /** The current row of `statement`, whose columns are CHANGE_COLUMNS, as a change of local version `l`. */
  change(statement: Statement, l: number): Change {
    const pk = statement.view(1);
    if (!sameBytes(pk, this.#pk)) this.#pk = this.#copy(pk);
    return {
      table: this.#names.of(statement.view(0)),
      pk: this.#pk,
      cid: this.#names.of(statement.view(2)),
      val: columnValue(statement, 3, (bytes) => this.#copy(bytes)),
      colVersion: statement.columnInteger(4),
      dbVersion: l,
      site: this.#sites.of(statement.view(5)),
      cl: statement.columnInteger(6),
      seq: statement.columnInteger(7),
    };
  }

  #copy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    if (bytes.length > SLAB / 4) return bytes.slice() as Uint8Array<ArrayBuffer>;
    if (bytes.length > this.#slab.length) this.#slab = new Uint8Array(SLAB);
    const copy = this.#slab.subarray(0, bytes.length);
    copy.set(bytes);
    this.#slab = this.#slab.subarray(bytes.length);
    return copy;
  }
}

/** The bytes of names and sites to bind, each made once. */
export class ChangeBinder {
  readonly #names = new Map<string, Uint8Array>();
  readonly #sites = new Map<SiteID, Uint8Array>();

  name(name: string): Uint8Array {
    return cached(this.#names, name, (text) => encoder.encode(text));
  }

  site(site: SiteID): Uint8Array {
    return cached(this.#sites, site, fromHex);
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

function cached(map: Map<string, Uint8Array>, key: string, make: (key: string) => Uint8Array): Uint8Array {
  const known = map.get(key);
  if (known !== undefined) return known;
  if (map.size >= MAX_RECENT) map.clear();
  const made = make(key);
  map.set(key, made);
  return made;
}

/** The texts of the byte strings that come again and again. */
class Recent {
  readonly #make: (bytes: Uint8Array) => string;
  #known: { readonly bytes: Uint8Array; readonly text: string }[] = [];

  constructor(make: (bytes: Uint8Array) => string) {
    this.#make = make;
  }

  of(bytes: Uint8Array): string {
    for (const known of this.#known) if (sameBytes(known.bytes, bytes)) return known.text;
    const made = { bytes: bytes.slice(), text: this.#make(bytes) };
    if (this.#known.length >= MAX_RECENT) this.#known = [];
    this.#known.push(made);
    return made.text;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
