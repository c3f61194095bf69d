// base64url without padding (RFC 4648 section 5), canonical: each value has one spelling.

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const digits = new Map([...alphabet].map((c, i) => [c.charCodeAt(0), i]));

/** The base64url text of `b`. */
export function encode64(b: Uint8Array): string {
  let s = "";
  for (let i = 0; i < b.length; i += 3) {
    const rest = b.length - i;
    const n = ((b[i] as number) << 16) | ((b[i + 1] ?? 0) << 8) | (b[i + 2] ?? 0);
    s += alphabet.charAt(n >> 18) + alphabet.charAt((n >> 12) & 63);
    if (rest > 1) s += alphabet.charAt((n >> 6) & 63);
    if (rest > 2) s += alphabet.charAt(n & 63);
  }
  return s;
}

/**
 * The bytes that `s` spells, or undefined if it is not canonical base64url: padding, white space, other characters
 * and non-zero trailing bits are refused; so is any other length when `length` (in bytes) is given.
 */
export function decode64(s: string, length?: number): Uint8Array<ArrayBuffer> | undefined {
  const size = Math.floor((s.length * 3) / 4);
  if (s.length % 4 === 1 || (length !== undefined && (size !== length || s.length !== textLength(length)))) {
    return undefined;
  }
  const out = new Uint8Array(size);
  let bits = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < s.length; i++) {
    const digit = digits.get(s.charCodeAt(i));
    if (digit === undefined) return undefined;
    bits = (bits << 6) | digit;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out[at++] = bits >> held;
      bits &= (1 << held) - 1;
    }
  }
  return bits === 0 ? out : undefined;
}

function textLength(bytes: number): number {
  return Math.ceil((bytes * 4) / 3);
}
