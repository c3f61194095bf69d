// Ids of rooms and peers.

import { compareBytes } from "../changeset/value.ts";
import { decode64, encode64 } from "./base64.ts";

/** Names a room at the server, 22 characters of base64url. Derived from the room's secret. */
export type RoomID = string;

/** Names a member of a room for one session, 22 characters of base64url. Random. */
export type PeerID = string;

/** The length of a room id and of a peer id, in bytes. */
export const IDLen = 16;

/** A random peer id. */
export function newPeerID(): PeerID {
  return encode64(crypto.getRandomValues(new Uint8Array(IDLen)));
}

/** Whether `s` is a room or peer id in its canonical wire form. */
export function isID(s: unknown): s is string {
  return typeof s === "string" && decode64(s, IDLen) !== undefined;
}

/** The 16 bytes of an id that `isID` has accepted. Throws a TypeError for anything else. */
export function idBytes(id: RoomID | PeerID): Uint8Array<ArrayBuffer> {
  const bytes = decode64(id, IDLen);
  if (!bytes) throw new TypeError("not an id of 16 bytes in base64url");
  return bytes;
}

/**
 * Orders peer ids by their bytes, which is not the order of their text: -1, 0 or 1. Of two members the greater one
 * offers, the lesser one is polite.
 */
export function comparePeers(a: PeerID, b: PeerID): -1 | 0 | 1 {
  return compareBytes(idBytes(a), idBytes(b));
}
