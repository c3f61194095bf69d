import { expect, test } from "vitest";
import {
  FrameLast,
  FramePart,
  FramePing,
  FramePong,
  MaxFrame,
  MaxFrameAccepted,
  pingFrame,
} from "../syncproto/frame.ts";
import { MaxMessage, MinMaxMessage } from "../syncproto/message.ts";
import { Channel, type DataChannel } from "./channel.ts";
import { defaultTiming } from "./timing.ts";

class FakeChannel implements DataChannel {
  readyState: RTCDataChannelState = "open";
  bufferedAmount = 0;
  bufferedAmountLowThreshold = 0;
  binaryType: BinaryType = "arraybuffer";
  onopen: DataChannel["onopen"] = null;
  onclose: DataChannel["onclose"] = null;
  onmessage: DataChannel["onmessage"] = null;
  onbufferedamountlow: DataChannel["onbufferedamountlow"] = null;
  readonly sent: Uint8Array[] = [];

  send(data: Uint8Array<ArrayBuffer>): void {
    this.sent.push(data);
    this.bufferedAmount += data.length;
  }

  close(): void {
    this.readyState = "closed";
  }

  /** The network has taken everything. */
  drain(): void {
    this.bufferedAmount = 0;
    this.onbufferedamountlow?.call(this as never, new Event("bufferedamountlow"));
  }

  receive(data: unknown): void {
    this.onmessage?.call(this as never, new MessageEvent("message", { data }));
  }
}

function setUp() {
  const dc = new FakeChannel();
  const log: string[] = [];
  const channel = new Channel(
    dc,
    {
      open: () => log.push("open"),
      message: (bytes) => log.push(`message ${bytes.length}`),
      fault: (error) => log.push(`fault ${error.sentence}`),
      closed: () => log.push("closed"),
    },
    defaultTiming,
  );
  return { dc, log, channel };
}

const kinds = (dc: FakeChannel) => dc.sent.map((frame) => frame[0]);
const buffer = (...bytes: number[]) => new Uint8Array(bytes).buffer;

test("a large message waits for the browser's buffer, and pings go between its parts", () => {
  const { dc, channel } = setUp();
  channel.send(new Uint8Array(1_000_000));
  const first = dc.sent.length;
  expect(first).toBeLessThan(20);
  expect(Math.max(...dc.sent.map((f) => f.length))).toBe(MaxFrame);
  dc.receive(pingFrame(5n).buffer);
  expect(kinds(dc).at(-1)).toBe(FramePong);
  while (dc.bufferedAmount > 0) dc.drain();
  const parts = kinds(dc).filter((kind) => kind === FramePart || kind === FrameLast);
  expect(parts.length).toBe(Math.ceil(1_000_000 / (MaxFrame - 1)));
  expect(parts.at(-1)).toBe(FrameLast);
});

test("messages come out whole, and a broken frame ends the listening", () => {
  const { dc, log } = setUp();
  dc.receive(buffer(FramePart, 1, 2));
  dc.receive(buffer(FrameLast, 3));
  dc.receive(buffer(9, 9));
  dc.receive(buffer(FrameLast, 3));
  expect(log).toEqual(["message 3", "fault a frame has the unknown type 9"]);
  const other = setUp();
  other.dc.receive("text");
  expect(other.log).toEqual(["fault a frame is text where bytes are expected"]);
});

test("silence: a ping after 2 s, suspect after 5 s, dead after 15 s", () => {
  const { dc, channel } = setUp();
  const health: string[] = [];
  for (let now = 1000; now <= 17_000; now += 250) health.push(channel.beat(now));
  expect(kinds(dc)).toEqual([FramePing]);
  expect(health.indexOf("suspect")).toBe(5000 / 250);
  expect(health.indexOf("dead")).toBe(15_000 / 250);
  dc.receive(buffer(FrameLast, 1));
  expect(channel.beat(17_250)).toBe("good");
});

test("a page that slept has not heard of silence", () => {
  const { channel } = setUp();
  channel.beat(1000);
  channel.beat(1250);
  expect(channel.beat(600_000)).toBe("good");
  expect(channel.heard).toBe(true);
});

test("after waking up, silence is noticed soon", () => {
  const { dc, channel } = setUp();
  channel.beat(1000);
  channel.probe(1100);
  expect(kinds(dc)).toEqual([FramePing]);
  expect(channel.beat(1250)).toBe("good");
  for (let now = 1500; now <= 1750; now += 250) expect(channel.beat(now)).toBe("good");
  expect(channel.beat(2000)).toBe("suspect");
});

test("the round trip is that of the answered ping", () => {
  const { dc, channel } = setUp();
  channel.probe(performance.now() - 40);
  const ping = dc.sent[0] as Uint8Array;
  dc.receive(new Uint8Array([FramePong, ...ping.subarray(1)]).buffer);
  expect(channel.figures.rtt).toBeGreaterThanOrEqual(40);
  expect(channel.heard).toBe(true);
});

test("what is queued goes out before a flushed close, and closing is told once", async () => {
  const { dc, log, channel } = setUp();
  channel.send(new Uint8Array(600_000));
  const closing = channel.flushAndClose();
  while (dc.bufferedAmount > 0) dc.drain();
  await closing;
  expect(kinds(dc).at(-1)).toBe(FrameLast);
  channel.close();
  await Promise.resolve();
  expect(log).toEqual(["closed"]);
});

test("who asks without end and takes nothing gets no answer, and holds no memory", () => {
  const { dc, log, channel } = setUp();
  channel.send(new Uint8Array(1_000_000));
  for (let i = 0; i < 50_000; i++) dc.receive(pingFrame(BigInt(i)).buffer);
  expect(dc.bufferedAmount).toBeLessThan(400_000);
  while (dc.bufferedAmount > 0) dc.drain();
  dc.receive(pingFrame(7n).buffer);
  expect(kinds(dc).at(-1)).toBe(FramePong);
  expect(log).toEqual([]);
});

test("messages for one that takes none are bounded", async () => {
  const { dc, log, channel } = setUp();
  const large = new Uint8Array(MaxMessage);
  for (let i = 0; i < 3; i++) channel.send(large);
  await Promise.resolve();
  expect(dc.readyState).toBe("closed");
  expect(log).toEqual(["closed"]);
});

test("a message that never ends is refused at 1 MiB before a hello", () => {
  const { dc, log } = setUp();
  const part = new Uint8Array(MaxFrameAccepted).buffer;
  for (let i = 0; i < MinMaxMessage / MaxFrameAccepted + 1; i++) dc.receive(part);
  expect(log).toEqual(["fault a message is longer than this peer accepts"]);
});
