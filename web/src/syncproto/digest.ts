// The messages about digests, and their codec.

import { fromHex, toHex } from "../changeset/change.ts";
import {
  type Digest,
  DigestLen,
  digestBytes,
  digestOf,
  MaxKeyShown,
  MaxPartRows,
  MaxPrefix,
  noRows,
  type Part,
  PartChildren,
  type Place,
  type RowSum,
  type Sum,
  type TableDigest,
} from "../changeset/digest.ts";
import { compareText } from "../changeset/value.ts";
import { ByteWriter } from "../changeset/writer.ts";
import { malformed } from "./errors.ts";
import { MaxName, TypeDigestAnswer, TypeDigestRequest, TypeResend } from "./message.ts";
import type { Vector } from "./vector.ts";
import { appendBytes, appendString, appendUvarint, appendVector, type Parser } from "./wire.ts";

// Bounds of these messages.

/** Tables of a digest answer. */
export const MaxDigestTables = 1024;
/** Prefixes of a digest request, and parts of an answer. */
export const MaxDigestParts = 64;
/** Rows of a resend. */
export const MaxResend = 64;
/** Bytes of parts after which an answer takes no further one. */
export const SoftDigest = 64 * 1024;

/** Asks what the other side holds. Each gets one answer; the next one may follow that. */
export interface DigestRequest {
  readonly type: typeof TypeDigestRequest;
  /** For the answer. */
  readonly id: number;
  /** "": all tables; then there are no prefixes. */
  readonly table: string;
  /** Of places. None: the digest of the whole table. */
  readonly prefixes: readonly string[];
}

// What a DigestAnswer holds.
export const DigestTables = 0;
export const DigestParts = 1;
/** Nothing: there is no such table. */
export const DigestNoTable = 2;

/** What one snapshot of a database holds. */
export interface DigestContent {
  readonly kind: typeof DigestTables | typeof DigestParts | typeof DigestNoTable;
  /** Of the snapshot, own entry included. */
  readonly vector: Vector;
  /** In ascending bytewise order of their names; without one that was asked for and does not exist. */
  readonly tables: readonly TableDigest[];
  /** Of the first prefixes, in their order; fewer than were asked for, where they would be too much. */
  readonly parts: readonly Part[];
}

/** The answer to a DigestRequest. */
export interface DigestAnswer extends DigestContent {
  readonly type: typeof TypeDigestAnswer;
  readonly id: number;
}

/** Asks for all that the other side has of some rows. There is no answer but changes, and from a reader none. */
export interface Resend {
  readonly type: typeof TypeResend;
  readonly table: string;
  /** 1 to MaxResend. */
  readonly places: readonly Place[];
}

const minDigestTable = 2 + 16 + 1 + 16 + 1;
const minDigestPart = 2;
const minRowSum = 16 + 1 + 1 + 1 + 16;

const partChildren = 0; // the kinds of parts
const partRows = 1;

export function appendDigestRequest(w: ByteWriter, m: DigestRequest): void {
  appendUvarint(w, m.id);
  appendString(w, m.table);
  appendUvarint(w, m.prefixes.length);
  for (const p of m.prefixes) {
    w.byte(p.length);
    w.bytes(fromHex(p.length % 2 === 0 ? p : `${p}0`));
  }
}

export function parseDigestRequest(p: Parser): DigestRequest {
  const id = p.number("an id", 0);
  const table = p.text("a name", 0, MaxName);
  const prefixes: string[] = [];
  for (let n = p.count("prefixes", MaxDigestParts, 1); n > 0; n--) prefixes.push(parsePrefix(p));
  if (table === "" && prefixes.length > 0) throw malformed("prefixes are given without a table");
  return { type: TypeDigestRequest, id, table, prefixes };
}

function parsePrefix(p: Parser): string {
  const n = p.byte();
  if (n > MaxPrefix) throw malformed(`a prefix has more than ${MaxPrefix} nibbles`);
  const hex = toHex(p.take((n + 1) >> 1));
  if (n % 2 === 1 && !hex.endsWith("0")) throw malformed("a prefix has bits behind its end");
  return hex.slice(0, n);
}

export function appendDigestAnswer(w: ByteWriter, m: DigestAnswer): void {
  appendUvarint(w, m.id);
  w.byte(m.kind);
  appendVector(w, m.vector);
  if (m.kind === DigestTables) {
    appendUvarint(w, m.tables.length);
    for (const t of m.tables) {
      appendString(w, t.table);
      w.bytes(digestBytes(t.columns));
      appendUvarint(w, t.sum.count);
      w.bytes(digestBytes(t.sum.digest));
      appendUvarint(w, t.stray);
    }
  } else if (m.kind === DigestParts) {
    appendUvarint(w, m.parts.length);
    for (const part of m.parts) appendPart(w, part);
  }
}

function appendPart(w: ByteWriter, part: Part): void {
  if ("children" in part) {
    w.byte(partChildren);
    for (const s of part.children) {
      appendUvarint(w, s.count);
      if (s.count > 0) w.bytes(digestBytes(s.digest));
    }
    return;
  }
  w.byte(partRows);
  appendUvarint(w, part.rows.length);
  for (const r of part.rows) {
    w.bytes(fromHex(r.place));
    appendBytes(w, r.key ?? new Uint8Array(0));
    appendUvarint(w, r.cl);
    appendUvarint(w, r.versions);
    w.bytes(digestBytes(r.digest));
  }
}

export function parseDigestAnswer(p: Parser): DigestAnswer {
  const id = p.number("an id", 0);
  const kind = p.byte();
  const vector = p.vector();
  const tables: TableDigest[] = [];
  const parts: Part[] = [];
  switch (kind) {
    case DigestTables:
      for (let n = p.count("tables", MaxDigestTables, minDigestTable); n > 0; n--) {
        const t = parseTable(p);
        const last = tables.at(-1);
        if (last && compareText(last.table, t.table) >= 0) {
          throw malformed("the tables are not in ascending order");
        }
        tables.push(t);
      }
      break;
    case DigestParts:
      for (let n = p.count("parts", MaxDigestParts, minDigestPart); n > 0; n--) parts.push(parsePart(p));
      break;
    case DigestNoTable:
      break;
    default:
      throw malformed(`a digest answer has the unknown kind ${kind}`);
  }
  return { type: TypeDigestAnswer, id, kind, vector, tables, parts };
}

function parseTable(p: Parser): TableDigest {
  const table = p.text("a name", 1, MaxName);
  const columns = parseDigest(p);
  const count = p.number("a count", 0);
  const sum = { count, digest: parseDigest(p) };
  return { table, columns, sum, stray: p.number("a count", 0) };
}

function parseDigest(p: Parser): Digest {
  return digestOf(p.take(DigestLen));
}

function parsePart(p: Parser): Part {
  const kind = p.byte();
  if (kind === partChildren) {
    const children: Sum[] = [];
    for (let i = 0; i < PartChildren; i++) {
      const count = p.number("a count", 0);
      children.push(count === 0 ? noRows : { count, digest: parseDigest(p) });
    }
    return { children };
  }
  if (kind !== partRows) throw malformed(`a part has the unknown kind ${kind}`);
  const rows: RowSum[] = [];
  for (let n = p.count("rows in a part", MaxPartRows, minRowSum); n > 0; n--) {
    const place = toHex(p.take(DigestLen));
    const key = p.bytes();
    if (key.length > MaxKeyShown) throw malformed(`a key in a part has more than ${MaxKeyShown} bytes`);
    if (place <= (rows.at(-1)?.place ?? "")) throw malformed("the rows of a part are not in ascending order");
    const cl = p.int();
    const versions = p.int();
    rows.push({ place, key: key.length > 0 ? key : undefined, cl, versions, digest: parseDigest(p) });
  }
  return { rows };
}

export function appendResend(w: ByteWriter, m: Resend): void {
  appendString(w, m.table);
  appendUvarint(w, m.places.length);
  for (const place of m.places) w.bytes(fromHex(place));
}

export function parseResend(p: Parser): Resend {
  const table = p.text("a name", 1, MaxName);
  const n = p.count("rows to resend", MaxResend, DigestLen);
  if (n === 0) throw malformed("a resend names no row");
  const places: Place[] = [];
  for (let i = 0; i < n; i++) places.push(toHex(p.take(DigestLen)));
  return { type: TypeResend, table, places };
}

/** As many of the first parts as an answer has room for; one at least. */
export function fittingParts(parts: readonly Part[]): readonly Part[] {
  const w = new ByteWriter(1024);
  for (const [i, part] of parts.entries()) {
    appendPart(w, part);
    if (i > 0 && w.length > SoftDigest) return parts.slice(0, i);
  }
  return parts;
}
