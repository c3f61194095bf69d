// The role proof: who holds the writer key, shown for one link.

import type { Keys } from "./link.ts";

const proofLabel = new TextEncoder().encode("crmesh role 1\0");
const part = 32;

/** One end of a link, as far as the role proof is concerned. */
export interface End {
  /** The SHA-256 of the end's DTLS certificate, 32 bytes. */
  readonly fingerprint: Uint8Array<ArrayBuffer>;
  /** The nonce of the end's offer or answer, 32 bytes. */
  readonly nonce: Uint8Array<ArrayBuffer>;
}

/**
 * The proof that `own` is a writer, for the one link between `own` and `remote`: 64 bytes, or none at all for
 * the keys of a reader.
 */
export async function signRole(keys: Keys, own: End, remote: End): Promise<Uint8Array<ArrayBuffer>> {
  if (!keys.writer) return new Uint8Array(0);
  return new Uint8Array(await crypto.subtle.sign("Ed25519", keys.writer.key, proofMessage(own, remote)));
}

/** Whether `signature` proves that `signer` is a writer, to `verifier`, on the one link between the two. */
export async function verifyRole(
  writerPublic: Uint8Array<ArrayBuffer>,
  signer: End,
  verifier: End,
  signature: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  try {
    const key = await crypto.subtle.importKey("raw", writerPublic, "Ed25519", false, ["verify"]);
    return await crypto.subtle.verify("Ed25519", key, signature, proofMessage(signer, verifier));
  } catch {
    return false; // the bytes are no key
  }
}

function proofMessage(own: End, remote: End): Uint8Array<ArrayBuffer> {
  const m = new Uint8Array(proofLabel.length + 4 * part);
  let at = 0;
  for (const bytes of [proofLabel, own.fingerprint, remote.fingerprint, own.nonce, remote.nonce]) {
    m.set(bytes, at);
    at += bytes.length;
  }
  return m;
}

/** A session description without exactly one SHA-256 fingerprint. No link is made from it. */
export class FingerprintError extends Error {
  override readonly name = "FingerprintError";

  constructor() {
    super("the session description has no single sha-256 fingerprint");
  }
}

/**
 * The SHA-256 fingerprint that a session description names, 32 bytes. The same one may stand at the session and at
 * the media level; two different ones are refused, for the proof would not say which one counts.
 * Throws a `FingerprintError`.
 */
export function fingerprint(sdp: string): Uint8Array<ArrayBuffer> {
  let found: string | undefined;
  for (const line of sdp.split(/\r*\n/)) {
    const value = /^a=fingerprint:([^ ]*) ?(.*?)\r*$/s.exec(line);
    if (value?.[1]?.toLowerCase() !== "sha-256") continue;
    const hex = value[2]?.toLowerCase() ?? "";
    if (!/^(?:[0-9a-f]{2}:){31}[0-9a-f]{2}$/.test(hex)) throw new FingerprintError();
    if (found !== undefined && found !== hex) throw new FingerprintError();
    found = hex;
  }
  if (found === undefined) throw new FingerprintError();
  return Uint8Array.from(found.split(":"), (pair) => Number.parseInt(pair, 16));
}
