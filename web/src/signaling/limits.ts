// Limits of the signaling protocol, see docs/SIGNALING.md.

/** The WebSocket subprotocol both sides must name. */
export const Subprotocol = "crmesh.signal.1";
/** Where the server takes WebSockets, relative to its base address. */
export const Path = "v1/signal";
/** Bounds one text frame from client to server, in bytes. */
export const MaxClientFrame = 64 * 1024;
/** Bounds one text frame from server to client, in bytes. */
export const MaxServerFrame = 256 * 1024;
/** Bounds the plaintext of an envelope, in bytes. */
export const MaxDescription = 32 * 1024;
/** Bytes that sealing adds: version, nonce, tag. */
export const SealOverhead = 1 + 12 + 16;
/** Bounds the base64url text of an envelope, in characters. */
export const MaxSealed = Math.floor(((MaxDescription + SealOverhead) * 4) / 3) + 1;
/** Bounds the sdp of an offer or answer, in bytes. */
export const MaxSDP = 24 * 1024;
/** Bounds `Meta.name`, in bytes. */
export const MaxName = 64;
/** Bounds a resume token, in characters. */
export const MaxToken = 64;
/** Bounds a join token, in characters. */
export const MaxAdmission = 256;
/** The greatest session number. */
export const MaxSession = Number.MAX_SAFE_INTEGER;
/** How many members a room has at most. */
export const MaxMembers = 512;
