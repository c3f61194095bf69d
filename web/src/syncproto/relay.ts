// The message that carries an envelope of docs/SIGNALING.md over members that lie between two others. It is no matter of
// the core: the page takes it before that sees it.

import type { ByteWriter } from "../changeset/writer.ts";
import { malformed } from "./errors.ts";
import { TypeRelay } from "./message.ts";
import { appendBytes, type Parser } from "./wire.ts";

/** How many times an envelope is passed on, on its way to a neighbour of its receiver. */
export const MaxRelayHops = 3;
/** Bytes of an envelope: version, nonce, tag, and a description that is not empty. */
export const MinRelayed = 30;
/** Bytes of an envelope: the largest description, and what sealing adds. */
export const MaxRelayed = 32 * 1024 + 29;

const peerLen = 16;

/** An envelope on its way. */
export interface Relay {
  readonly type: typeof TypeRelay;
  /** How many more members that are no neighbours of `to` may pass it on, at most MaxRelayHops. */
  readonly hops: number;
  /** Peer ids, 16 bytes each. */
  readonly from: Uint8Array;
  readonly to: Uint8Array;
  /** The envelope, MinRelayed to MaxRelayed bytes. */
  readonly sealed: Uint8Array;
}

/** Appends all but the type. */
export function appendRelay(w: ByteWriter, m: Relay): void {
  w.byte(m.hops);
  w.bytes(m.from);
  w.bytes(m.to);
  appendBytes(w, m.sealed);
}

/** Reads all but the type. Throws a ProtocolError. */
export function parseRelay(p: Parser): Relay {
  const hops = p.byte();
  if (hops > MaxRelayHops) throw malformed(`a relay has more than ${MaxRelayHops} hops to go`);
  const from = p.take(peerLen);
  const to = p.take(peerLen);
  const sealed = p.bytes();
  if (sealed.length < MinRelayed || sealed.length > MaxRelayed) {
    throw malformed(`the envelope of a relay is not ${MinRelayed} to ${MaxRelayed} bytes long`);
  }
  return { type: TypeRelay, hops, from, to, sealed };
}
