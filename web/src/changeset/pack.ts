// The packed form of values and keys. A value is one byte and its data, big-endian:
//
//   byte     n<<3 | kind, n being the number of bytes of the integer that follows
//   INTEGER  n bytes, the fewest that hold it as an unsigned number: 0 takes none, a negative one 8
//   REAL     8 bytes, IEEE 754; n is 0
//   TEXT     n bytes of length, again the fewest, and then the text
//   BLOB     likewise
//   NULL     nothing; n is 0
//
// A packed key is one byte with the number of values, and the values.

import {
  type Kind,
  KindBlob,
  KindInteger,
  KindNull,
  KindReal,
  KindText,
  nullValue,
  uintBytes,
  type Value,
} from "./value.ts";
import { ByteWriter } from "./writer.ts";

/** The largest number of values in a packed key. */
export const MaxPackedValues = 255;

const maxIntBytes = 8;

/** Says why bytes are no packed value or key. */
export class PackedError extends Error {
  override readonly name = "PackedError";
  /** Position of the byte at fault, from the start of what was parsed. */
  readonly offset: number;
  /** A sentence without its full stop. */
  readonly reason: string;

  constructor(offset: number, reason: string) {
    super(`packed value: ${reason} (at byte ${offset})`);
    this.offset = offset;
    this.reason = reason;
  }
}

/** Appends `v` in packed form to `w`. */
export function appendValue(w: ByteWriter, v: Value): void {
  switch (v.kind) {
    case KindInteger:
      appendUint(w, KindInteger, BigInt.asUintN(64, v.int));
      return;
    case KindReal:
      w.byte(KindReal);
      w.float64(v.real);
      return;
    case KindText:
    case KindBlob:
      appendUint(w, v.kind, v.bytes.length);
      w.bytes(v.bytes);
      return;
    case KindNull:
      w.byte(KindNull);
  }
}

/** The packed key of `values`. Throws a RangeError for more than `MaxPackedValues` values. */
export function pack(values: readonly Value[]): Uint8Array {
  if (values.length > MaxPackedValues) {
    throw new RangeError(`a packed key holds at most ${MaxPackedValues} values, not ${values.length}`);
  }
  const w = new ByteWriter();
  w.byte(values.length);
  for (const v of values) appendValue(w, v);
  return w.take();
}

/**
 * The values of a packed key. Like cr-sqlite it accepts integers that are longer than they need be and ignores bytes
 * after the last value. Unlike it, it refuses a key without values, one with fewer values than it announces, and a
 * length that points past the end. The values share the memory of `b`. Throws a `PackedError`.
 */
export function parsePacked(b: Uint8Array): Value[] {
  return parseKey(b, false).values;
}

/**
 * `parsePacked` for bytes that another program sent: it accepts only what `pack` makes, so that what parses packs to
 * the same bytes again. Throws a `PackedError`.
 */
export function parseCanonical(b: Uint8Array): Value[] {
  const { values, next } = parseKey(b, true);
  if (next < b.length) throw new PackedError(next, "bytes follow the last value");
  return values;
}

/** A parsed value and where the next one starts. */
export interface ParsedValue {
  readonly value: Value;
  readonly next: number;
}

/**
 * The value at `offset` of `b`. Accepts only what `appendValue` makes. The value shares the memory of `b`.
 * Throws a `PackedError`.
 */
export function parseValue(b: Uint8Array, offset: number): ParsedValue {
  return parseOne(b, offset, true);
}

function parseKey(b: Uint8Array, strict: boolean): { values: Value[]; next: number } {
  const count = b[0];
  if (count === undefined) throw new PackedError(0, "the key is empty");
  if (count === 0) throw new PackedError(0, "the key holds no value");
  // A value takes at least one byte: a short key must not make us do the work for what it announces.
  if (b.length - 1 < count) {
    throw new PackedError(b.length, "the key has fewer values than it announces");
  }
  const values: Value[] = [];
  let next = 1;
  for (let i = 0; i < count; i++) {
    const parsed = parseOne(b, next, strict);
    values.push(parsed.value);
    next = parsed.next;
  }
  return { values, next };
}

function parseOne(b: Uint8Array, offset: number, strict: boolean): ParsedValue {
  const head = b[offset];
  if (head === undefined) throw new PackedError(offset, "a value is missing");
  const kind = head & 7;
  const n = head >> 3;
  let next = offset + 1;
  switch (kind) {
    case KindReal:
    case KindNull: {
      if (strict && n !== 0) throw new PackedError(offset, "the kind of the value takes no length");
      if (kind === KindNull) return { value: nullValue(), next };
      if (b.length - next < 8) throw new PackedError(offset, "the value ends early");
      const num = new DataView(b.buffer, b.byteOffset + next, 8).getFloat64(0);
      next += 8;
      if (!Number.isNaN(num)) return { value: { kind, real: num }, next };
      if (strict) throw new PackedError(offset, "NaN is no value of SQLite");
      return { value: nullValue(), next };
    }
    case KindInteger:
    case KindText:
    case KindBlob: {
      if (n > maxIntBytes) throw new PackedError(offset, "an integer has more than 8 bytes");
      if (b.length - next < n) throw new PackedError(offset, "the value ends early");
      if (strict && n > 0 && b[next] === 0) {
        throw new PackedError(offset, "an integer is longer than it need be");
      }
      const num = readUint(b, next, n);
      next += n;
      if (kind === KindInteger) {
        return { value: { kind, int: BigInt.asIntN(64, BigInt(num)) }, next };
      }
      if (num > b.length - next) {
        throw new PackedError(offset, "the length points past the end");
      }
      const end = next + Number(num);
      return { value: { kind, bytes: b.subarray(next, end) }, next: end };
    }
    default:
      throw new PackedError(offset, "the kind of the value is unknown");
  }
}

// Up to 6 bytes fit a number exactly: the common case does without bigint arithmetic.
function readUint(b: Uint8Array, offset: number, n: number): number | bigint {
  const end = offset + n;
  if (n <= 6) {
    let num = 0;
    for (let i = offset; i < end; i++) num = num * 256 + (b[i] as number);
    return num;
  }
  let num = 0n;
  for (let i = offset; i < end; i++) num = (num << 8n) | BigInt(b[i] as number);
  return num;
}

// Appends the byte that announces n bytes of kind, and the unsigned number `v` in the fewest bytes.
function appendUint(w: ByteWriter, kind: Kind, v: number | bigint): void {
  const size = uintBytes(v);
  w.byte((size << 3) | kind);
  if (v <= 0xffff_ffff) {
    // The common case does without bigint arithmetic.
    const small = Number(v);
    for (let shift = 8 * (size - 1); shift >= 0; shift -= 8) w.byte(small >>> shift);
    return;
  }
  const bits = BigInt(v);
  for (let shift = 8 * (size - 1); shift >= 0; shift -= 8) {
    w.byte(Number((bits >> BigInt(shift)) & 0xffn));
  }
}
