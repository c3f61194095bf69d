// Errors that end a link.

/** The codes of docs/PROTOCOL.md. A receiver treats one that it does not know like CodeInternal. */
export const CodeVersion = 1;
export const CodeMalformed = 2;
export const CodeTooLarge = 3;
export const CodeReadOnly = 4;
export const CodeBadProof = 5;
export const CodeSameSite = 6;
export const CodeFlow = 7;
export const CodeStaleCopy = 8;
export const CodeSuperseded = 9;
export const CodeInternal = 10;
export const CodeParked = 11;

const codeNames: readonly string[] = [
  "",
  "version",
  "malformed",
  "too-large",
  "read-only",
  "bad-proof",
  "same-site",
  "flow",
  "stale-copy",
  "superseded",
  "internal",
  "parked",
];

/** The code's name in docs/PROTOCOL.md. */
export function codeName(code: number): string {
  return codeNames[code] || `code ${code}`;
}

/** An error that ends a link: as what parsing found, or as what the core found. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
  readonly code: number;
  /** For a person, without "error:" before it; at most MaxSentence bytes. */
  readonly sentence: string;

  constructor(code: number, sentence: string) {
    super(`${codeName(code)}: ${sentence}`);
    this.code = code;
    this.sentence = sentence;
  }
}

/** `error` as a ProtocolError: itself if it is one, otherwise one with CodeInternal and its text. */
export function asProtocolError(error: unknown, maxBytes: number): ProtocolError {
  if (error instanceof ProtocolError) return error;
  const sentence = error instanceof Error ? error.message : String(error);
  return new ProtocolError(CodeInternal, truncate(sentence, maxBytes));
}

/** Bytes or a message that are against the protocol. */
export function malformed(sentence: string): ProtocolError {
  return new ProtocolError(CodeMalformed, sentence);
}

/** Cuts `s` to at most `n` bytes of UTF-8, at the start of a character. */
export function truncate(s: string, n: number): string {
  const bytes = new TextEncoder().encode(s);
  if (bytes.length <= n) return s;
  let end = n;
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, end));
}
