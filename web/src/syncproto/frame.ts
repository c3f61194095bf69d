// Frames: how messages travel on a data channel.

import { ByteWriter } from "../changeset/writer.ts";
import { claimsWriter } from "./codec.ts";
import { CodeTooLarge, malformed, ProtocolError } from "./errors.ts";
import { MinMaxMessage } from "./message.ts";

/** Bytes of a frame that is sent, the type byte included. */
export const MaxFrame = 16384;
/** Bytes of a frame that is accepted. */
export const MaxFrameAccepted = 65536;

// A frame's type byte.

/** A part of a message; more follow. */
export const FramePart = 0;
/** The last part of a message. */
export const FrameLast = 1;
/** 8 bytes to be sent back. */
export const FramePing = 2;
/** The 8 bytes of a ping. */
export const FramePong = 3;

const tokenLen = 8;

/** A frame with as much of `message` behind `offset` as fits, and where the next one starts. */
export interface CutFrame {
  readonly frame: Uint8Array<ArrayBuffer>;
  /** undefined once the frame was the last. */
  readonly next: number | undefined;
}

/** Cuts the frame of `message` that starts at `offset`. The message is not empty. */
export function cutFrame(message: Uint8Array, offset: number): CutFrame {
  const end = Math.min(offset + MaxFrame - 1, message.length);
  const last = end === message.length;
  const frame = new Uint8Array(1 + end - offset);
  frame[0] = last ? FrameLast : FramePart;
  frame.set(message.subarray(offset, end), 1);
  return { frame, next: last ? undefined : end };
}

/** A ping frame. `token` is an unsigned 64-bit number. */
export function pingFrame(token: bigint): Uint8Array<ArrayBuffer> {
  return tokenFrame(FramePing, token);
}

/** The answer to a ping. */
export function pongFrame(token: bigint): Uint8Array<ArrayBuffer> {
  return tokenFrame(FramePong, token);
}

function tokenFrame(kind: number, token: bigint): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(1 + tokenLen);
  frame[0] = kind;
  new DataView(frame.buffer).setBigUint64(1, token);
  return frame;
}

/** What an Assembler made of one frame. */
export type Frame =
  | { readonly kind: typeof FramePart }
  | { readonly kind: typeof FrameLast; readonly message: Uint8Array<ArrayBuffer> }
  | { readonly kind: typeof FramePing | typeof FramePong; readonly token: bigint };

/** Puts the messages of one link together from its frames. */
export class Assembler {
  readonly #max: number;
  #limit: number; // of the next message
  #parts = new ByteWriter();

  /**
   * `maxMessage`: bytes of a message that is still accepted; at most MinMaxMessage until a hello has come that claims the
   * writer role: nothing that a reader has to say is longer, and a member that proves nothing makes nobody keep 64 MiB of
   * a message that never ends.
   */
  constructor(maxMessage: number) {
    this.#max = maxMessage;
    this.#limit = Math.min(maxMessage, MinMaxMessage);
  }

  /** Takes the next frame; it copies what it keeps. Throws a ProtocolError; afterwards the link is of no more use. */
  frame(b: Uint8Array): Frame {
    if (b.length > MaxFrameAccepted) {
      throw new ProtocolError(CodeTooLarge, `a frame is longer than ${MaxFrameAccepted} bytes`);
    }
    if (b.length < 2) throw malformed("a frame has no payload");
    const kind = b[0];
    const payload = b.subarray(1);
    switch (kind) {
      case FramePing:
      case FramePong: {
        if (payload.length !== tokenLen) throw malformed("a ping or pong does not carry 8 bytes");
        return { kind, token: new DataView(payload.buffer, payload.byteOffset).getBigUint64(0) };
      }
      case FramePart:
      case FrameLast: {
        if (payload.length > this.#limit - this.#parts.length) {
          throw new ProtocolError(CodeTooLarge, "a message is longer than this peer accepts");
        }
        this.#parts.bytes(payload);
        if (kind === FramePart) return { kind };
        const message = this.#parts.take();
        this.#parts = new ByteWriter();
        if (claimsWriter(message)) this.#limit = this.#max;
        return { kind, message };
      }
      default:
        throw malformed(`a frame has the unknown type ${kind}`);
    }
  }
}
