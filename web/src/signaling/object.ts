// Reading fields of JSON that somebody else wrote.

/** A JSON object whose fields have not been looked at yet. */
export type Fields = Readonly<Record<string, unknown>>;

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** One JSON object in UTF-8 with nothing behind it, or what is wrong with `b`, to follow its name in a sentence. */
export function parseObject(b: Uint8Array): Fields | string {
  let decoded: string;
  try {
    decoded = strict.decode(b);
  } catch {
    return "is not UTF-8";
  }
  return parseText(decoded) ?? "is not a JSON object";
}

/** The JSON object that `s` holds, or undefined. */
export function parseText(s: string): Fields | undefined {
  try {
    return asObject(JSON.parse(s));
  } catch {
    return undefined;
  }
}

/** `v` if it is an object, and neither null nor an array. */
export function asObject(v: unknown): Fields | undefined {
  return typeof v === "object" && v !== null && !Array.isArray(v) ? (v as Fields) : undefined;
}

/** Whether the field is there and not null. */
export function has(f: Fields, name: string): boolean {
  return Object.hasOwn(f, name) && f[name] !== null;
}

/** `v` if it is a string, made well-formed: a lone surrogate becomes U+FFFD. */
export function text(v: unknown): string | undefined {
  return typeof v === "string" ? v.replace(/\p{Surrogate}/gu, "\ufffd") : undefined;
}

/** `text`, with null for an absent field; undefined for another type. */
export function optionalText(v: unknown): string | null | undefined {
  return v === undefined || v === null ? null : text(v);
}

/** `v` if it is an integer from 0 to `max`. */
export function integerOf(v: unknown, max: number): number | undefined {
  return typeof v === "number" && Number.isSafeInteger(v) && v >= 0 && v <= max ? v : undefined;
}

/** The length of `s` in UTF-8, in bytes. */
export function utf8Length(s: string): number {
  return encoder.encode(s).length;
}
