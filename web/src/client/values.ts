// Values of the public API, and the core's.

import {
  blob,
  decodeText,
  integer,
  KindBlob,
  KindInteger,
  KindReal,
  KindText,
  nullValue,
  real,
  textString,
  type Value,
} from "../changeset/value.ts";

/**
 * A SQLite value: INTEGER is a bigint, REAL a number, TEXT a string, BLOB a Uint8Array. The storage class is kept both
 * ways: 2n is the INTEGER 2 and 2 the REAL 2.0, which differ in columns without an affinity.
 */
export type SqlValue = null | bigint | number | string | Uint8Array;

/** `v` as a Value. An integer beyond 64 bits throws a RangeError; NaN is NULL, as in SQLite. */
export function toValue(v: SqlValue): Value {
  switch (typeof v) {
    case "bigint":
      if (BigInt.asIntN(64, v) !== v) {
        throw new RangeError("an INTEGER has at most 64 bits; store larger numbers as TEXT");
      }
      return integer(v);
    case "number":
      return real(v);
    case "string":
      return textString(v);
    default:
      if (v === null) return nullValue();
      if (v instanceof Uint8Array) return blob(v);
      throw new TypeError("an argument is null, a bigint, a number, a string or a Uint8Array");
  }
}

/** `v` for the public API. Text that is not UTF-8 has U+FFFD where it is not. */
export function fromValue(v: Value): SqlValue {
  switch (v.kind) {
    case KindInteger:
      return v.int;
    case KindReal:
      return v.real;
    case KindText:
      return decodeText(v.bytes);
    case KindBlob:
      return v.bytes;
    default:
      return null;
  }
}
