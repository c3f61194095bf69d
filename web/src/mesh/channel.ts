// Messages and the heartbeat on one data channel.

import { asProtocolError, malformed, type ProtocolError } from "../syncproto/errors.ts";
import {
  Assembler,
  cutFrame,
  FrameLast,
  FramePing,
  FramePong,
  pingFrame,
  pongFrame,
} from "../syncproto/frame.ts";
import { MaxMessage, MaxSentence } from "../syncproto/message.ts";
import type { Timing } from "./timing.ts";

/** Bytes that the browser may hold before frames wait for it, and the level at which they go on. */
const highWater = 256 * 1024;
const lowWater = 64 * 1024;
/** Bytes in the browser from which on pings are not answered: the other side may ask without end and take nothing. */
const maxControlBuffered = highWater + 64 * 1024;
/** Bytes of messages that may wait for the browser. The core's window keeps far below it. */
const maxQueued = 2 * MaxMessage;

/** The part of an RTCDataChannel that is used here. */
export type DataChannel = Pick<
  RTCDataChannel,
  | "readyState"
  | "bufferedAmount"
  | "bufferedAmountLowThreshold"
  | "binaryType"
  | "onopen"
  | "onclose"
  | "onmessage"
  | "onbufferedamountlow"
  | "close"
> & { send(data: Uint8Array<ArrayBuffer>): void };

/** What a channel reports, never from within a call into it. */
export interface ChannelEvents {
  open(): void;
  /** A whole message; the receiver owns it. */
  message(bytes: Uint8Array<ArrayBuffer>): void;
  /** The other side broke the protocol: nothing it sends is looked at any more. */
  fault(error: ProtocolError): void;
  /** The channel is gone. Once. */
  closed(): void;
}

/** How a channel is doing. */
export type Health = "good" | "suspect" | "dead";

/** Figures of one channel. */
export interface ChannelFigures {
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** The last round trip, in ms; undefined before the first. */
  readonly rtt: number | undefined;
}

/** Cuts messages into frames and puts them together again, and knows whether the other side is alive. */
export class Channel {
  readonly #dc: DataChannel;
  readonly #events: ChannelEvents;
  readonly #timing: Timing;
  readonly #assembler = new Assembler(MaxMessage);
  readonly #queue: Uint8Array[] = [];
  #offset = 0; // where the next frame of queue[0] starts
  #queued = 0; // bytes
  #flushed: (() => void) | undefined;
  #broken = false;
  #closed = false;

  #silence = 0; // ms for which nothing was heard, as far as this page was awake
  #lastBeat = 0; // ms
  #pinged = false; // since the last thing heard
  #token = 0n;
  #pingedAt = 0; // ms
  #bytesIn = 0;
  #bytesOut = 0;
  #rtt: number | undefined;

  constructor(dc: DataChannel, events: ChannelEvents, timing: Timing) {
    this.#dc = dc;
    this.#events = events;
    this.#timing = timing;
    dc.binaryType = "arraybuffer";
    dc.bufferedAmountLowThreshold = lowWater;
    dc.onopen = () => {
      this.#silence = 0;
      events.open();
    };
    dc.onclose = () => this.#end();
    dc.onbufferedamountlow = () => this.#pump();
    dc.onmessage = (event) => this.#receive(event.data);
  }

  get isOpen(): boolean {
    return this.#dc.readyState === "open";
  }

  get figures(): ChannelFigures {
    return { bytesIn: this.#bytesIn, bytesOut: this.#bytesOut, rtt: this.#rtt };
  }

  /** Messages that wait to be sent. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** Queues a message, which must not be changed afterwards. Returns at once; on a channel that is not open it is dropped. */
  send(message: Uint8Array): void {
    if (!this.isOpen) return;
    if (this.#queued + message.length > maxQueued) {
      this.close(); // the other side takes nothing any more, and the core did not stop
      return;
    }
    this.#queue.push(message);
    this.#queued += message.length;
    this.#pump();
  }

  /** Sends what is queued, for at most `timing.flush`, and closes. */
  async flushAndClose(): Promise<void> {
    if (this.isOpen && (this.#queue.length > 0 || this.#dc.bufferedAmount > 0)) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.#timing.flush);
        this.#flushed = () => {
          clearTimeout(timer);
          resolve();
        };
        this.#dc.bufferedAmountLowThreshold = 0;
        this.#pump();
      });
    }
    this.close();
  }

  /** Closes at once; `closed` is reported. */
  close(): void {
    if (this.#closed) return;
    this.#dc.close();
    queueMicrotask(() => this.#end());
  }

  /**
   * To be called about every `timing.beat` with a time in ms that rises: pings, and says how the channel is. A page that
   * was asleep has heard nothing either, so of a long gap between two calls only a second counts.
   */
  beat(now: number): Health {
    if (this.#lastBeat > 0) this.#silence += Math.min(now - this.#lastBeat, 1000);
    this.#lastBeat = now;
    const { ping, suspect, dead } = this.#timing;
    if (this.#silence >= ping && !this.#pinged) this.#ping(now);
    return this.#silence >= dead ? "dead" : this.#silence >= suspect ? "suspect" : "good";
  }

  /** For how long nothing was heard, as far as this page was awake, in ms. */
  get silence(): number {
    return this.#silence;
  }

  /** Whether anything was heard since the last ping. */
  get heard(): boolean {
    return !this.#pinged;
  }

  /** The page woke up or the network changed: pings at once. Without an answer the channel is suspect in `timing.probe`. */
  probe(now: number): void {
    this.#silence = Math.max(this.#silence, this.#timing.suspect - this.#timing.probe);
    this.#ping(now);
  }

  #ping(now: number): void {
    if (!this.isOpen) return;
    this.#pinged = true;
    this.#pingedAt = now;
    this.#write(pingFrame(++this.#token));
  }

  #receive(data: unknown): void {
    if (this.#broken) return;
    this.#silence = 0;
    this.#pinged = false;
    try {
      if (!(data instanceof ArrayBuffer)) throw malformed("a frame is text where bytes are expected");
      this.#bytesIn += data.byteLength;
      const frame = this.#assembler.frame(new Uint8Array(data));
      switch (frame.kind) {
        case FrameLast:
          this.#events.message(frame.message);
          break;
        case FramePing:
          if (this.isOpen && this.#dc.bufferedAmount < maxControlBuffered)
            this.#write(pongFrame(frame.token));
          break;
        case FramePong:
          if (frame.token === this.#token) this.#rtt = performance.now() - this.#pingedAt;
      }
    } catch (error) {
      this.#broken = true;
      this.#events.fault(asProtocolError(error, MaxSentence));
    }
  }

  // Hands frames to the browser while it holds less than highWater.
  #pump(): void {
    while (this.isOpen && this.#dc.bufferedAmount < highWater) {
      const message = this.#queue[0];
      if (!message) break;
      const { frame, next } = cutFrame(message, this.#offset);
      this.#write(frame);
      this.#offset = next ?? 0;
      if (next === undefined) {
        this.#queue.shift();
        this.#queued -= message.length;
      }
    }
    if (this.#queue.length === 0 && (this.#dc.bufferedAmount === 0 || !this.isOpen)) this.#flushed?.();
  }

  #write(frame: Uint8Array<ArrayBuffer>): void {
    this.#bytesOut += frame.length;
    this.#dc.send(frame);
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#broken = true;
    this.#queue.length = 0;
    this.#flushed?.();
    this.#dc.onopen = null;
    this.#dc.onclose = null;
    this.#dc.onmessage = null;
    this.#dc.onbufferedamountlow = null;
    this.#events.closed();
  }
}
