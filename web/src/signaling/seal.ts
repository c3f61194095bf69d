// Envelopes: descriptions that only members of the room can read.

import { decode64, encode64 } from "./base64.ts";
import { type Description, marshalDescription, parseDescription } from "./description.ts";
import { IDLen, idBytes, type PeerID } from "./id.ts";
import { MaxSealed, SealOverhead } from "./limits.ts";
import type { Keys } from "./link.ts";

const sealVersion = 1;
const nonceLen = 12;

/** Why an envelope is dropped: another version, cut, changed, made with another key, or for another pair of peers. */
export class NotOpenedError extends Error {
  override readonly name = "NotOpenedError";

  constructor() {
    super("the envelope does not open");
  }
}

/**
 * The envelope that carries `d` from one peer to another, as the base64url text of the signal message. With random
 * nonces a key is good for about 2^32 envelopes, far more than a room ever sends. Rejects with a `DescriptionError`.
 */
export function sealDescription(keys: Keys, from: PeerID, to: PeerID, d: Description): Promise<string> {
  return sealWith(keys, from, to, marshalDescription(d), crypto.getRandomValues(new Uint8Array(nonceLen)));
}

/** `sealDescription` of its JSON with a given nonce of 12 bytes. A nonce must never be used twice with one key. */
export async function sealWith(
  keys: Keys,
  from: PeerID,
  to: PeerID,
  plain: Uint8Array<ArrayBuffer>,
  nonce: Uint8Array<ArrayBuffer>,
): Promise<string> {
  const params = { name: "AES-GCM", iv: nonce, additionalData: additional(keys, from, to) };
  const cipher = new Uint8Array(await crypto.subtle.encrypt(params, keys.seal, plain));
  const b = new Uint8Array(1 + nonceLen + cipher.length);
  b[0] = sealVersion;
  b.set(nonce, 1);
  b.set(cipher, 1 + nonceLen);
  return encode64(b);
}

/**
 * Opens an envelope that `from` sent to `to`. Rejects with a `NotOpenedError`, an `UnknownKindError` or a
 * `DescriptionError`; each means: drop it.
 */
export async function openDescription(
  keys: Keys,
  from: PeerID,
  to: PeerID,
  sealed: string,
): Promise<Description> {
  const b = sealed.length > MaxSealed ? undefined : decode64(sealed);
  if (!b || b.length < SealOverhead || b[0] !== sealVersion) throw new NotOpenedError();
  const params = {
    name: "AES-GCM",
    iv: b.subarray(1, 1 + nonceLen),
    additionalData: additional(keys, from, to),
  };
  let plain: ArrayBuffer;
  try {
    plain = await crypto.subtle.decrypt(params, keys.seal, b.subarray(1 + nonceLen));
  } catch {
    throw new NotOpenedError();
  }
  return parseDescription(new Uint8Array(plain));
}

// Binds an envelope to its room, sender and receiver.
function additional(keys: Keys, from: PeerID, to: PeerID): Uint8Array<ArrayBuffer> {
  const aad = new Uint8Array(3 * IDLen);
  aad.set(idBytes(keys.room), 0);
  aad.set(idBytes(from), IDLen);
  aad.set(idBytes(to), 2 * IDLen);
  return aad;
}
