// Values of the core in and out of statements, their storage class and bytes unchanged.

import {
  blob,
  integer,
  KindBlob,
  KindInteger,
  KindNull,
  KindReal,
  KindText,
  nullValue,
  real,
  text,
  type Value,
} from "../changeset/value.ts";
import type { Statement } from "./sqlite.ts";
import { TYPE_BLOB, TYPE_FLOAT, TYPE_INTEGER, TYPE_TEXT } from "./wasm.ts";

/** Binds `value` to parameter `index`, counted from 1. */
export function bindValue(statement: Statement, index: number, value: Value): void {
  switch (value.kind) {
    case KindInteger:
      statement.bindInteger(index, value.int);
      return;
    case KindReal:
      statement.bindReal(index, value.real);
      return;
    case KindText:
      statement.bindText(index, value.bytes);
      return;
    case KindBlob:
      statement.bindBlob(index, value.bytes);
      return;
    case KindNull:
      statement.bindNull(index);
  }
}

/** The value of column `index` of the current row; `copy` makes the copy of a text or blob that it is to have. */
export function columnValue(statement: Statement, index: number, copy = copyAlone): Value {
  switch (statement.columnType(index)) {
    case TYPE_INTEGER:
      return integer(statement.columnInteger(index));
    case TYPE_FLOAT:
      return real(statement.columnReal(index));
    case TYPE_TEXT:
      return text(copy(statement.view(index)));
    case TYPE_BLOB:
      return blob(copy(statement.view(index)));
    default:
      return nullValue();
  }
}

function copyAlone(bytes: Uint8Array): Uint8Array {
  return bytes.slice();
}

/** An integer column of the current row as a number; NULL is 0. For local versions and sequence numbers. */
export function columnNumber(statement: Statement, index: number): number {
  return Number(statement.columnInteger(index));
}
