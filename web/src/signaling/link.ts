// Rooms, the keys behind them, and the links that carry them.

import { decode64, encode64 } from "./base64.ts";
import { IDLen, type RoomID } from "./id.ts";
import { MaxAdmission } from "./limits.ts";

const secretLen = 32;
const infoRead = "crmesh read";
const infoRoom = "crmesh room";
const infoSeal = "crmesh seal";

// An Ed25519 seed in PKCS #8 (RFC 8410): this prefix, then the 32 bytes.
const pkcs8Prefix = new Uint8Array([48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32]);

/** Everything that membership of a room is made of. Secrets: must not be logged or sent. */
export interface Keys {
  readonly room: RoomID;
  /** Root of `room` and `seal`; all members have it. 32 bytes. */
  readonly read: Uint8Array<ArrayBuffer>;
  /** AES-256-GCM key of the envelopes; not extractable. */
  readonly seal: CryptoKey;
  /** Ed25519, 32 bytes. */
  readonly writerPublic: Uint8Array<ArrayBuffer>;
  /** The write secret and its signing key; absent for readers. */
  readonly writer?: { readonly secret: Uint8Array<ArrayBuffer>; readonly key: CryptoKey };
}

/** A room link: where the page is, and the keys of the room. */
export interface Link {
  /** The address of the page, ending in "/", or "" for a link that is only a fragment. */
  readonly base: string;
  /** The join token that the link brings along, `?token=...` before '#'; not part of `base`. */
  readonly token: string | undefined;
  readonly keys: Keys;
}

/** Why a text is not a room link. */
export type LinkFault = "empty" | "no-secret" | "base" | "parts" | "text" | "mismatch" | "read-cut";

const sentences: Record<LinkFault, string> = {
  empty: "the room link is empty; copy it again from the page or from `peer room new`",
  "no-secret": "the room link has nothing behind '#'; the part after '#' is the key, copy the whole link",
  base: "the room link does not start with http:// or https:// and a host; copy it again",
  parts:
    "a room link has two parts behind '#' (write) or three (read), separated by '.'; this one has another number, copy it again",
  text: "a part behind '#' of the room link is cut or mistyped; copy the whole link again",
  mismatch:
    "the room and the secret in the link do not belong together; it was changed on the way, copy it again",
  "read-cut": "this is a read link whose last part, the writer key, is missing; copy the whole link again",
};

/** Says in one sentence what is wrong with a room link. It never holds the link, which is a secret. */
export class LinkError extends Error {
  override readonly name = "LinkError";
  readonly fault: LinkFault;

  constructor(fault: LinkFault) {
    super(sentences[fault]);
    this.fault = fault;
  }
}

/** Makes a room: the keys of a writer, from 32 random bytes. */
export function newRoom(): Promise<Keys> {
  return writerKeys(crypto.getRandomValues(new Uint8Array(secretLen)));
}

/** Derives the keys of a room from its write secret, 32 bytes. */
export async function writerKeys(secret: Uint8Array<ArrayBuffer>): Promise<Keys> {
  const pkcs8 = new Uint8Array(pkcs8Prefix.length + secretLen);
  pkcs8.set(pkcs8Prefix);
  pkcs8.set(secret, pkcs8Prefix.length);
  // The private key object does not tell its public half, save through its JWK.
  const extractable = await subtle().importKey("pkcs8", pkcs8, "Ed25519", true, ["sign"]);
  const jwk = await subtle().exportKey("jwk", extractable);
  const writerPublic = decode64(jwk.x ?? "", secretLen);
  if (!writerPublic) throw new Error("this browser gave no public key for an Ed25519 key");
  const key = await subtle().importKey("pkcs8", pkcs8, "Ed25519", false, ["sign"]);
  const keys = await readerKeys(await derive(secret, infoRead, secretLen), writerPublic);
  return { ...keys, writer: { secret, key } };
}

/** Derives the keys of a member who may only read. */
export async function readerKeys(
  read: Uint8Array<ArrayBuffer>,
  writerPublic: Uint8Array<ArrayBuffer>,
): Promise<Keys> {
  const seal = await derive(read, infoSeal, secretLen);
  return {
    room: encode64(await derive(read, infoRoom, IDLen)),
    read,
    seal: await subtle().importKey("raw", seal, "AES-GCM", false, ["encrypt", "decrypt"]),
    writerPublic,
  };
}

/**
 * The link that makes its holder a writer, or undefined if `keys` are a reader's. `base`: the address of the page,
 * ending in "/", or "" for the fragment alone.
 */
export function writeLink(keys: Keys, base: string): string | undefined {
  return keys.writer && `${base}#${keys.room}.${encode64(keys.writer.secret)}`;
}

/** The link that makes its holder a reader. `base` as in `writeLink`. */
export function readLink(keys: Keys, base: string): string {
  return `${base}#${keys.room}.${encode64(keys.read)}.${encode64(keys.writerPublic)}`;
}

/** Whether `text` may be a join token, signed or not: it passes through an address unchanged. */
export function isJoinToken(text: string): boolean {
  return text.length <= MaxAdmission && /^[A-Za-z0-9._~-]+$/.test(text);
}

/** The join token in the query of an address, or undefined if there is none, or what is there cannot be one. */
export function tokenOf(query: string): string | undefined {
  const token = new URLSearchParams(query).get("token");
  return token !== null && isJoinToken(token) ? token : undefined;
}

/** The base of a link that brings a join token along. Without a token, or a base to hang it on, `base` itself. */
export function withToken(base: string, token: string | undefined): string {
  return base === "" || token === undefined ? base : `${base}?token=${token}`;
}

/**
 * Reads a write or read link, with or without the part before '#'. White space around it is ignored.
 * Rejects with a `LinkError`.
 */
export async function parseLink(text: string): Promise<Link> {
  const trimmed = text.trim();
  if (trimmed === "") throw new LinkError("empty");
  const cut = trimmed.indexOf("#");
  if (cut < 0 && trimmed.includes("/")) throw new LinkError("no-secret");
  const fragment = trimmed.slice(cut + 1);
  if (fragment === "") throw new LinkError("no-secret");
  const { base, token } = normalBase(cut < 0 ? "" : trimmed.slice(0, cut));
  return { base, token, keys: await parseFragment(fragment) };
}

// The base with an explicit path that ends in "/", and the join token of its query.
function normalBase(base: string): { base: string; token: string | undefined } {
  if (base === "") return { base, token: undefined };
  let url: URL;
  try {
    url = new URL(base);
  } catch {
    throw new LinkError("base");
  }
  if ((url.protocol !== "http:" && url.protocol !== "https:") || !/^https?:\/\/[^/]/i.test(base)) {
    throw new LinkError("base");
  }
  const path = url.pathname.slice(0, url.pathname.lastIndexOf("/") + 1);
  return { base: `${url.protocol}//${url.host}${path}`, token: tokenOf(url.search) };
}

async function parseFragment(fragment: string): Promise<Keys> {
  const parts = fragment.split(".");
  const [roomText = "", secretText = "", publicText] = parts;
  if (parts.length !== 2 && parts.length !== 3) throw new LinkError("parts");
  const room = decode64(roomText, IDLen);
  const secret = decode64(secretText, secretLen);
  if (!room || !secret) throw new LinkError("text");
  if (publicText === undefined) {
    const keys = await writerKeys(secret);
    if (keys.room === roomText) return keys;
    const asRead = encode64(await derive(secret, infoRoom, IDLen));
    throw new LinkError(asRead === roomText ? "read-cut" : "mismatch");
  }
  const writerPublic = decode64(publicText, secretLen);
  if (!writerPublic) throw new LinkError("text");
  const keys = await readerKeys(secret, writerPublic);
  if (keys.room !== roomText) throw new LinkError("mismatch");
  return keys;
}

// HKDF-SHA256 of the secret, empty salt.
async function derive(
  secret: Uint8Array<ArrayBuffer>,
  info: string,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const key = await subtle().importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const params = {
    name: "HKDF",
    hash: "SHA-256",
    salt: new Uint8Array(0),
    info: new TextEncoder().encode(info),
  };
  return new Uint8Array(await subtle().deriveBits(params, key, length * 8));
}

function subtle(): SubtleCrypto {
  // Browsers keep WebCrypto from pages that came over plain http from another machine.
  if (!crypto.subtle) {
    throw new Error(
      "this page has no access to cryptography: open it over https, or over http from localhost",
    );
  }
  return crypto.subtle;
}
