// Descriptions: what an envelope holds.

import { decode64, encode64 } from "./base64.ts";
import { MaxDescription, MaxSDP, MaxSession } from "./limits.ts";
import { type Fields, has, integerOf, optionalText, parseObject, text, utf8Length } from "./object.ts";

const maxCandidate = 2048;
const maxSDPMid = 64;
const maxUsernameFragment = 256;
const maxMLineIndex = 65535;
const nonceLen = 32;
const siteLen = 16;

/** The browser's RTCIceCandidateInit with every field present. */
export interface Candidate {
  readonly candidate: string;
  readonly sdpMid: string | null;
  readonly sdpMLineIndex: number | null;
  readonly usernameFragment: string | null;
}

/**
 * What an envelope holds. `session` names one attempt at a link; answers, candidates and byes bear the number of their
 * offer. `nonce` (32 random bytes for the role proof) and `site` (16 bytes, the sender's database) go with offers and
 * answers. A null candidate is the end of candidates.
 */
export type Description =
  | {
      readonly kind: "offer" | "answer";
      readonly session: number;
      readonly sdp: string;
      readonly nonce: Uint8Array<ArrayBuffer>;
      readonly site: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: "candidate"; readonly session: number; readonly candidate: Candidate | null }
  | { readonly kind: "want" | "bye"; readonly session: number };

/** Says what is wrong with a description. */
export class DescriptionError extends Error {
  override readonly name = "DescriptionError";
  /** JSON name, "" for the whole. */
  readonly field: string;

  constructor(field: string, reason: string) {
    super(field === "" ? `the description ${reason}` : `field "${field}" of the description ${reason}`);
    this.field = field;
  }
}

/** Marks a description of a later version of the protocol: to be ignored, not counted as damage. */
export class UnknownKindError extends Error {
  override readonly name = "UnknownKindError";

  constructor() {
    super("unknown kind of description");
  }
}

/** The JSON of `d` in UTF-8. Throws a `DescriptionError` if it breaks a limit. */
export function marshalDescription(d: Description): Uint8Array<ArrayBuffer> {
  check(d);
  let wire: object = { kind: d.kind, session: d.session };
  if (d.kind === "offer" || d.kind === "answer") {
    wire = { ...wire, sdp: d.sdp, nonce: encode64(d.nonce), site: encode64(d.site) };
  } else if (d.kind === "candidate" && d.candidate) {
    const { candidate, sdpMid, sdpMLineIndex, usernameFragment } = d.candidate;
    wire = { ...wire, candidate: { candidate, sdpMid, sdpMLineIndex, usernameFragment } };
  }
  const b = new TextEncoder().encode(JSON.stringify(wire));
  if (b.length > MaxDescription) throw tooLong(b.length);
  return b;
}

/** Reads the JSON of a description. Throws a `DescriptionError`, or an `UnknownKindError`. */
export function parseDescription(b: Uint8Array): Description {
  if (b.length > MaxDescription) throw tooLong(b.length);
  const f = parseObject(b);
  if (typeof f === "string") throw new DescriptionError("", f);
  const d = readDescription(f);
  check(d);
  return d;
}

function readDescription(f: Fields): Description {
  const kind = required("kind", has(f, "kind"), text(f.kind));
  switch (kind) {
    case "offer":
    case "answer":
    case "candidate":
    case "want":
    case "bye":
      break;
    default:
      throw new UnknownKindError();
  }
  const session = required("session", has(f, "session"), integerOf(f.session, MaxSession));
  const described = kind === "offer" || kind === "answer";
  for (const name of ["sdp", "nonce", "site"]) {
    if (!described && has(f, name)) throw new DescriptionError(name, "does not belong to this kind");
  }
  if (kind !== "candidate" && has(f, "candidate")) {
    throw new DescriptionError("candidate", "does not belong to this kind");
  }
  if (kind === "candidate") return { kind, session, candidate: readCandidate(f.candidate) };
  if (kind === "want" || kind === "bye") return { kind, session };
  return {
    kind,
    session,
    sdp: required("sdp", has(f, "sdp"), text(f.sdp)),
    nonce: bytes("nonce", required("nonce", has(f, "nonce"), text(f.nonce)), nonceLen),
    site: bytes("site", required("site", has(f, "site"), text(f.site)), siteLen),
  };
}

function readCandidate(value: unknown): Candidate | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new DescriptionError("candidate", "is not a JSON object");
  }
  const f = value as Fields;
  const sdpMid = optionalText(f.sdpMid);
  const usernameFragment = optionalText(f.usernameFragment);
  const index = has(f, "sdpMLineIndex") ? integerOf(f.sdpMLineIndex, maxMLineIndex) : null;
  if (sdpMid === undefined) throw wrongType("candidate.sdpMid");
  if (usernameFragment === undefined) throw wrongType("candidate.usernameFragment");
  if (index === undefined) throw wrongType("candidate.sdpMLineIndex");
  return {
    candidate: required("candidate.candidate", has(f, "candidate"), text(f.candidate)),
    sdpMid,
    sdpMLineIndex: index,
    usernameFragment,
  };
}

// The rules that sending and receiving share.
function check(d: Description): void {
  if (!Number.isSafeInteger(d.session) || d.session < 0) {
    throw new DescriptionError("session", "is not an integer from 0 to 2^53-1");
  }
  if (d.kind === "offer" || d.kind === "answer") {
    const n = utf8Length(d.sdp);
    if (n === 0 || n > MaxSDP) {
      throw new DescriptionError("sdp", `has ${n} bytes, 1 to ${MaxSDP} are allowed`);
    }
    if (d.nonce.length !== nonceLen) throw new DescriptionError("nonce", `is not ${nonceLen} bytes long`);
    if (d.site.length !== siteLen) throw new DescriptionError("site", `is not ${siteLen} bytes long`);
  }
  if (d.kind === "candidate" && d.candidate) {
    bound("candidate.candidate", d.candidate.candidate, maxCandidate);
    bound("candidate.sdpMid", d.candidate.sdpMid, maxSDPMid);
    bound("candidate.usernameFragment", d.candidate.usernameFragment, maxUsernameFragment);
  }
}

function bound(field: string, s: string | null, limit: number): void {
  const n = s === null ? 0 : utf8Length(s);
  if (n > limit) throw new DescriptionError(field, `has ${n} bytes, at most ${limit} are allowed`);
}

function required<T>(field: string, present: boolean, value: T | undefined): T {
  if (!present) throw new DescriptionError(field, "is missing");
  if (value === undefined) throw wrongType(field);
  return value;
}

function bytes(field: string, s: string, length: number): Uint8Array<ArrayBuffer> {
  const b = decode64(s, length);
  if (!b) throw new DescriptionError(field, `is not the base64url of ${length} bytes`);
  return b;
}

function wrongType(field: string): DescriptionError {
  return new DescriptionError(field, "has the wrong type or range");
}

function tooLong(n: number): DescriptionError {
  return new DescriptionError("", `is ${n} bytes long, at most ${MaxDescription} are allowed`);
}
