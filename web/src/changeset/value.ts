// One SQLite value with its storage class, and the order of values in a merge.

/** The storage classes of SQLite, numbered as cr-sqlite packs them. */
export const KindInteger = 1;
export const KindReal = 2;
export const KindText = 3;
export const KindBlob = 4;
export const KindNull = 5;

export type Kind = typeof KindInteger | typeof KindReal | typeof KindText | typeof KindBlob | typeof KindNull;

/**
 * One SQLite value with its storage class: INTEGER 2 and REAL 2.0 are different values. Text is bytes, and may hold a
 * NUL or invalid UTF-8, as in SQLite. A plain object, so that it passes through `postMessage` unchanged. Bytes are
 * owned by the value: nobody modifies them.
 */
export type Value =
  | { readonly kind: typeof KindInteger; readonly int: bigint }
  | { readonly kind: typeof KindReal; readonly real: number }
  | { readonly kind: typeof KindText; readonly bytes: Uint8Array }
  | { readonly kind: typeof KindBlob; readonly bytes: Uint8Array }
  | { readonly kind: typeof KindNull };

const theNull: Value = { kind: KindNull };
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The NULL value. */
export function nullValue(): Value {
  return theNull;
}

/** An INTEGER value: `v` as a 64-bit two's complement number; bits above are cut off. */
export function integer(v: bigint | number): Value {
  return { kind: KindInteger, int: BigInt.asIntN(64, BigInt(v)) };
}

/** A REAL value; NaN is NULL, as in SQLite. */
export function real(v: number): Value {
  return Number.isNaN(v) ? theNull : { kind: KindReal, real: v };
}

/** A TEXT value that owns `bytes` from now on. */
export function text(bytes: Uint8Array): Value {
  return { kind: KindText, bytes };
}

/** A TEXT value holding `s` in UTF-8; a lone surrogate becomes U+FFFD. */
export function textString(s: string): Value {
  return { kind: KindText, bytes: encoder.encode(s) };
}

/** A BLOB value that owns `bytes` from now on. */
export function blob(bytes: Uint8Array): Value {
  return { kind: KindBlob, bytes };
}

/** The bytes of a TEXT or BLOB as a string; what is not UTF-8 becomes U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** The length of `v` in packed form, in bytes. */
export function valueSize(v: Value): number {
  switch (v.kind) {
    case KindInteger:
      return 1 + uintBytes(BigInt.asUintN(64, v.int));
    case KindReal:
      return 9;
    case KindText:
    case KindBlob:
      return 1 + uintBytes(v.bytes.length) + v.bytes.length;
    case KindNull:
      return 1;
  }
}

/** How many bytes hold `n`, an unsigned 64-bit number: 0 for 0, at most 8. */
export function uintBytes(n: number | bigint): number {
  if (n > Number.MAX_SAFE_INTEGER) return BigInt(n) >> 56n ? 8 : 7;
  let size = 0;
  for (let rest = Number(n); rest >= 1; rest /= 256) size++;
  return size;
}

/**
 * The order of values as a merge uses it when versions are equal: NULL < BLOB < TEXT < REAL < INTEGER, and within a
 * kind numbers by size, text and blobs bytewise with the shorter first. Every INTEGER is above every REAL, whatever
 * their sizes. Returns -1, 0 or 1; 0.0 and -0.0 are equal.
 */
export function compareValues(a: Value, b: Value): -1 | 0 | 1 {
  if (a.kind === KindInteger && b.kind === KindInteger) return sign(a.int, b.int);
  if (a.kind === KindReal && b.kind === KindReal) return sign(a.real, b.real);
  if ((a.kind === KindText && b.kind === KindText) || (a.kind === KindBlob && b.kind === KindBlob)) {
    return compareBytes(a.bytes, b.bytes);
  }
  return sign(b.kind, a.kind); // the kinds are numbered from the highest to the lowest
}

/** Whether `a` and `b` are the same value of the same kind, to the bit: 0.0 and -0.0 differ. */
export function equalValues(a: Value, b: Value): boolean {
  if (a.kind === KindReal && b.kind === KindReal) return Object.is(a.real, b.real);
  return a.kind === b.kind && compareValues(a, b) === 0;
}

/** Bytewise order, unsigned, the shorter of two with the same beginning first. Returns -1, 0 or 1. */
export function compareBytes(a: Uint8Array, b: Uint8Array): -1 | 0 | 1 {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    if (x !== y) return x < y ? -1 : 1;
  }
  return sign(a.length, b.length);
}

function sign<T extends number | bigint>(a: T, b: T): -1 | 0 | 1 {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Orders strings by their UTF-8 bytes, which is not the order of JavaScript: negative, 0 or positive. */
export function compareText(a: string, b: string): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

// Surrogates stand for what lies above all that one code unit holds.
function rank(c: number): number {
  return c >= 0xd800 && c <= 0xdfff ? c + 0x10000 : c;
}
