// Values as people see and type them. What is shown and not changed is never written back.

import type { SqlValue } from "../react/source.ts";

/** The storage classes, and two ways to type what a text field cannot hold. */
export type Kind = "INTEGER" | "REAL" | "TEXT" | "TEXT in hex" | "BLOB in hex" | "NULL";

export const kinds: readonly Kind[] = ["TEXT", "INTEGER", "REAL", "BLOB in hex", "TEXT in hex", "NULL"];

const encoder = new TextEncoder();
const INT64_MAX = 2n ** 63n - 1n;

/** The kind in which the editor opens a value: a text that a text field would change opens in hex. */
export function kindOf(value: SqlValue): Kind {
  if (value === null) return "NULL";
  if (typeof value === "bigint") return "INTEGER";
  if (typeof value === "number") return "REAL";
  if (value instanceof Uint8Array) return "BLOB in hex";
  return /[\0\r]/.test(value) ? "TEXT in hex" : "TEXT";
}

/** The value as the editor's text. */
export function toText(value: SqlValue, kind: Kind): string {
  if (value === null || kind === "NULL") return "";
  if (value instanceof Uint8Array) return hex(value);
  if (kind === "TEXT in hex" && typeof value === "string") return hex(encoder.encode(value));
  return typeof value === "number" ? realText(value) : String(value);
}

/** A REAL with a point or an exponent, so that it is not taken for an INTEGER. */
export function realText(n: number): string {
  const text = String(n);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

/** The typed text as a value of the kind, or a sentence that says why it is none. */
export function parseValue(text: string, kind: Kind): { value: SqlValue } | { error: string } {
  switch (kind) {
    case "NULL":
      return { value: null };
    case "TEXT":
      return { value: text };
    case "INTEGER": {
      const digits = text.trim();
      if (!/^[+-]?\d+$/.test(digits))
        return { error: "An INTEGER has digits only, with a sign before them if need be." };
      const value = BigInt(digits.replace("+", ""));
      if (value > INT64_MAX || value < -INT64_MAX - 1n) return { error: "An INTEGER has at most 64 bits." };
      return { value };
    }
    case "REAL": {
      const value = Number(text.trim());
      if (text.trim() === "" || Number.isNaN(value))
        return { error: "A REAL is a number such as 2.5 or 1e9." };
      return { value };
    }
    case "BLOB in hex":
    case "TEXT in hex": {
      const digits = text.replaceAll(/\s/g, "");
      if (!/^([0-9a-fA-F]{2})*$/.test(digits))
        return { error: "Hex has two digits, 0-9 and a-f, for each byte." };
      const bytes = Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
      if (kind === "BLOB in hex") return { value: bytes };
      try {
        return { value: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
      } catch {
        return { error: "These bytes are not UTF-8 text; store them as a BLOB." };
      }
    }
  }
}

/** The kind that a new value of a column most likely has, by the rules of SQLite's type affinity. */
export function kindOfColumn(declared: string): Kind {
  const type = declared.toUpperCase();
  if (type.includes("INT")) return "INTEGER";
  if (/CHAR|CLOB|TEXT/.test(type)) return "TEXT";
  if (type.includes("BLOB")) return "BLOB in hex";
  if (/REAL|FLOA|DOUB/.test(type)) return "REAL";
  return "TEXT";
}

/** Whether two values are the same, storage class included. */
export function sameValue(a: SqlValue, b: SqlValue): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return hex(a) === hex(b);
  return Object.is(a, b);
}

/** A size for people, in B, kB or MB. */
export function sizeText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
