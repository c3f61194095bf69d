// The primitives of docs/PROTOCOL.md. What is appended parses; what parses appends to the same bytes.

import { fromHex, SiteIDLen, toHex } from "../changeset/change.ts";
import { parseValue } from "../changeset/pack.ts";
import type { Value } from "../changeset/value.ts";
import type { ByteWriter } from "../changeset/writer.ts";
import { malformed } from "./errors.ts";
import { MaxName, MaxVectorSites, MaxVersion } from "./message.ts";
import { type SiteID, sitesOf, type Vector } from "./vector.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The length of `s` in UTF-8, in bytes; -1 for a string that has no UTF-8, because of a lone surrogate. */
export function utf8Length(s: string): number {
  let n = s.length;
  for (let i = 0; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (c < 0x80) continue;
    n += c < 0x800 ? 1 : 2;
    if (c < 0xd800 || c > 0xdfff) continue;
    const low = s.charCodeAt(i + 1);
    if (c > 0xdbff || !(low >= 0xdc00 && low <= 0xdfff)) return -1;
    i++; // four bytes for the two
  }
  return n;
}

/** Appends the unsigned 64 bits of `n`. */
export function appendUvarint(w: ByteWriter, n: number | bigint): void {
  w.uvarint(n);
}

/** Appends a length and `b`. */
export function appendBytes(w: ByteWriter, b: Uint8Array): void {
  appendUvarint(w, b.length);
  w.bytes(b);
}

/** Appends a length and the UTF-8 of `s`. */
export function appendString(w: ByteWriter, s: string): void {
  appendBytes(w, encoder.encode(s));
}

/** Appends a site without its length: 16 bytes. */
export function appendSite(w: ByteWriter, site: SiteID): void {
  w.bytes(fromHex(site));
}

/** Appends a vector, its sites in ascending order. */
export function appendVector(w: ByteWriter, v: Vector): void {
  appendUvarint(w, v.size);
  for (const site of sitesOf(v)) {
    appendSite(w, site);
    appendUvarint(w, v.get(site) as number);
  }
}

/** Appends a list of sites, which are in ascending order. */
export function appendSites(w: ByteWriter, sites: readonly SiteID[]): void {
  appendUvarint(w, sites.length);
  for (const site of sites) appendSite(w, site);
}

/** Numbers the strings of one kind as a message names them: the first time in full, then by number. */
export class Refs {
  readonly #numbers = new Map<string, number>();
  readonly #encode: (s: string) => Uint8Array;

  constructor(encode: (s: string) => Uint8Array) {
    this.#encode = encode;
  }

  static sites(): Refs {
    return new Refs(fromHex);
  }

  static names(): Refs {
    return new Refs((s) => encoder.encode(s));
  }

  append(w: ByteWriter, s: string): void {
    const known = this.#numbers.get(s);
    if (known !== undefined) {
      appendUvarint(w, known);
      return;
    }
    this.#numbers.set(s, this.#numbers.size + 1);
    w.byte(0);
    appendBytes(w, this.#encode(s));
  }
}

/** Reads a message from its start. Every method throws a ProtocolError at the first fault. */
export class Parser {
  readonly #b: Uint8Array;
  #at = 0;
  readonly #sites: string[] = [];
  readonly #names: string[] = [];
  readonly #seenSites = new Set<string>();
  readonly #seenNames = new Set<string>();

  /** What is taken shares the memory of `b`. */
  constructor(b: Uint8Array) {
    this.#b = b;
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#b.length - this.#at;
  }

  take(n: number): Uint8Array {
    if (n > this.left) throw endsEarly();
    const out = this.#b.subarray(this.#at, this.#at + n);
    this.#at += n;
    return out;
  }

  byte(): number {
    const b = this.#b[this.#at];
    if (b === undefined) throw endsEarly();
    this.#at++;
    return b;
  }

  /** An unsigned 64-bit number: a bigint where it may not be exact as a number. */
  uvarint(): number | bigint {
    let low = 0;
    for (let i = 0, scale = 1; i < 7; i++, scale *= 0x80) {
      const b = this.byte();
      low += (b & 0x7f) * scale;
      if (b < 0x80) {
        if (b === 0 && i > 0) throw badNumber();
        return low;
      }
    }
    let high = 0n;
    for (let i = 7, shift = 49n; i < 10; i++, shift += 7n) {
      const b = this.byte();
      if (i === 9 && b > 1) throw badNumber();
      high |= BigInt(b & 0x7f) << shift;
      if (b < 0x80) {
        if (b === 0) throw badNumber();
        return high | BigInt(low);
      }
    }
    throw badNumber();
  }

  /** A 64-bit two's complement number. */
  int(): bigint {
    return BigInt.asIntN(64, BigInt(this.uvarint()));
  }

  /** A number of `low` to MaxVersion. */
  number(what: string, low: number): number {
    const v = this.uvarint();
    if (v < low || v > MaxVersion) {
      throw malformed(`${what} is not in the range from ${low} to 2^53-1`);
    }
    return Number(v);
  }

  /** How many things of at least `size` bytes follow; refuses more than `most` and more than can follow. */
  count(what: string, most: number, size: number): number {
    const n = this.uvarint();
    if (n > most) throw malformed(`a message has more than ${most} ${what}`);
    if (Number(n) * size > this.left) throw endsEarly();
    return Number(n);
  }

  bytes(): Uint8Array {
    const n = this.uvarint();
    if (n > this.left) throw endsEarly();
    return this.take(Number(n));
  }

  /** UTF-8 of `least` to `most` bytes. */
  text(what: string, least: number, most: number): string {
    const n = this.uvarint();
    if (n < least || n > most) throw malformed(`${what} is not ${least} to ${most} bytes long`);
    const b = this.take(Number(n));
    try {
      return decoder.decode(b);
    } catch {
      throw malformed(`${what} is not UTF-8`);
    }
  }

  site(): SiteID {
    return toHex(this.take(SiteIDLen));
  }

  vector(): Vector {
    const n = this.count("sites in a vector", MaxVectorSites, SiteIDLen + 1);
    const v = new Map<SiteID, number>();
    let last = "";
    for (let i = 0; i < n; i++) {
      const site = this.site();
      if (site <= last) throw malformed("the sites of a vector are not in ascending order");
      v.set(site, this.number("a version", 1));
      last = site;
    }
    return v;
  }

  /** Sites in ascending order, at most `most`; `what` says which. */
  siteList(what: string, most: number): SiteID[] {
    const n = this.count(what, most, SiteIDLen);
    const sites: SiteID[] = [];
    for (let i = 0; i < n; i++) {
      const site = this.site();
      if (site <= (sites.at(-1) ?? "")) throw malformed(`the ${what} are not in ascending order`);
      sites.push(site);
    }
    return sites;
  }

  siteRef(): SiteID {
    const k = this.uvarint();
    if (k !== 0) return named(this.#sites, k);
    const b = this.bytes();
    if (b.length > SiteIDLen) throw malformed("a site id is longer than 16 bytes");
    return first(this.#sites, this.#seenSites, toHex(b));
  }

  nameRef(): string {
    const k = this.uvarint();
    if (k !== 0) return named(this.#names, k);
    return first(this.#names, this.#seenNames, this.text("a name", 1, MaxName));
  }

  value(): Value {
    try {
      const { value, next } = parseValue(this.#b, this.#at);
      this.#at = next;
      return value;
    } catch {
      throw malformed("a value is not in its packed form");
    }
  }
}

function named(list: readonly string[], k: number | bigint): string {
  const s = list[Number(k) - 1];
  if (s === undefined) throw malformed("a name or site is referred to before it is given");
  return s;
}

function first(list: string[], seen: Set<string>, s: string): string {
  if (seen.has(s)) throw malformed("a name or site is given in full a second time");
  seen.add(s);
  list.push(s);
  return s;
}

function endsEarly() {
  return malformed("the message ends early");
}

function badNumber() {
  return malformed("a number is cut off, too large or not in its shortest form");
}
