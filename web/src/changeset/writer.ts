// A growing byte buffer.

import { MaxVersion } from "./change.ts";

/** Collects bytes; the buffer doubles when it is full. */
export class ByteWriter {
  #buf: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  /** `capacity`: bytes to reserve at once. */
  constructor(capacity = 64) {
    this.#buf = new Uint8Array(Math.max(capacity, 16));
    this.#view = new DataView(this.#buf.buffer);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** Appends the lowest 8 bits of `b`. */
  byte(b: number): void {
    this.#reserve(1);
    this.#buf[this.#length++] = b;
  }

  /** Appends a copy of `b`. */
  bytes(b: Uint8Array): void {
    this.#reserve(b.length);
    this.#buf.set(b, this.#length);
    this.#length += b.length;
  }

  /** Appends `v` as 8 bytes, IEEE 754, big-endian. */
  float64(v: number): void {
    this.#reserve(8);
    this.#view.setFloat64(this.#length, v);
    this.#length += 8;
  }

  /** Appends the unsigned 64 bits of `n` as LEB128, in the fewest bytes. */
  uvarint(n: number | bigint): void {
    let rest = n;
    if (typeof rest === "bigint") {
      rest = BigInt.asUintN(64, rest);
      for (; rest > MaxVersion; rest >>= 7n) this.byte(Number(rest & 0x7fn) | 0x80);
      rest = Number(rest);
    }
    while (rest >= 0x80) {
      this.byte((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.byte(rest);
  }

  /** Forgets what was written; the buffer stays. */
  clear(): void {
    this.#length = 0;
  }

  /** What was written so far; valid until the next call. */
  view(): Uint8Array {
    return this.#buf.subarray(0, this.#length);
  }

  /** What was written. The caller owns it; the writer must not be used afterwards. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#buf.length === this.#length ? this.#buf : this.#buf.slice(0, this.#length);
  }

  #reserve(n: number): void {
    const need = this.#length + n;
    if (need <= this.#buf.length) return;
    const grown = new Uint8Array(Math.max(need, this.#buf.length * 2));
    grown.set(this.#buf.subarray(0, this.#length));
    this.#buf = grown;
    this.#view = new DataView(grown.buffer);
  }
}
