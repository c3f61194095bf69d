// A growing byte buffer.

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
