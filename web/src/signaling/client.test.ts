import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SignalClient, type SignalEvents } from "./client.ts";

const room = "AAAAAAAAAAAAAAAAAAAAAA";
const self = "AQAAAAAAAAAAAAAAAAAAAA";
const other = "AgAAAAAAAAAAAAAAAAAAAA";

class FakeSocket {
  readyState = 0;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly sent: string[] = [];
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  send(frame: string): void {
    this.sent.push(frame);
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  end(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  joined(members: string[] = [], ttl = 0): void {
    this.open();
    const list = members.map((peer) => ({ peer, meta: { replica: false, name: "n" } }));
    this.say({
      type: "joined",
      peer: self,
      token: "tok",
      members: list,
      iceServers: [],
      ttl,
      resumed: false,
    });
  }
}

let sockets: FakeSocket[];
let log: string[];
let client: SignalClient;

function start(...urls: string[]): void {
  const events: SignalEvents = {
    state: (state, error) => log.push(error ? `${state}: ${error}` : state),
    member: (peer) => log.push(`member ${peer.slice(0, 2)}`),
    gone: (peer) => log.push(`gone ${peer.slice(0, 2)}`),
    iceServers: () => {},
    signal: (from, sealed) => log.push(`signal ${from.slice(0, 2)} ${sealed}`),
    unreachable: (peer) => log.push(`unreachable ${peer.slice(0, 2)}`),
  };
  client = new SignalClient({
    urls,
    room,
    peer: self,
    meta: { replica: false, name: "me" },
    events,
    socket: (url) => {
      const socket = new FakeSocket(url);
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    random: () => 1,
  });
  client.start();
}

const last = () => sockets.at(-1) as FakeSocket;

beforeEach(() => {
  vi.useFakeTimers();
  sockets = [];
  log = [];
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

test("joins, and joins again with its token, at the next address", () => {
  start("ws://one", "ws://two");
  last().joined([other]);
  expect(JSON.parse(last().sent[0] ?? "")).toEqual({
    type: "join",
    room,
    peer: self,
    meta: { replica: false, name: "me" },
  });
  expect(client.signal(other, "abc")).toBe(true);
  last().say({ type: "signal", from: other, sealed: "xyz" });
  last().end(1006);
  expect(client.signal(other, "abc")).toBe(false);
  vi.advanceTimersByTime(500);
  expect(sockets.map((s) => s.url)).toEqual(["ws://one", "ws://two"]);
  last().joined([other]);
  expect(JSON.parse(last().sent[0] ?? "").token).toBe("tok");
  expect(log.filter((line) => line.startsWith("member"))).toEqual(["member Ag"]);
  expect(log).toContain("signal Ag xyz");
});

test("waits longer after each failure, and as long as the server asks", () => {
  start("ws://one");
  const waits: number[] = [];
  for (let i = 0; i < 7; i++) {
    last().end(1006);
    const n = sockets.length;
    let waited = 0;
    for (; sockets.length === n; waited += 100) vi.advanceTimersByTime(100);
    waits.push(waited);
  }
  expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000]);
  last().open();
  last().say({ type: "error", code: "rate", message: "slow down", retryAfter: 60 });
  last().end(4429, "rate");
  const n = sockets.length;
  vi.advanceTimersByTime(59_900);
  expect(sockets.length).toBe(n);
  vi.advanceTimersByTime(100);
  expect(sockets.length).toBe(n + 1);
});

test("stops when a newer connection took over, and at addresses that are no server of ours", () => {
  start("ws://one", "ws://two");
  last().end(1002, "subprotocol");
  vi.advanceTimersByTime(500);
  expect(last().url).toBe("ws://two");
  last().end(1002, "subprotocol");
  vi.advanceTimersByTime(60_000);
  expect(sockets.length).toBe(2);
  expect(log.at(-1)).toMatch(/^stopped: .*no crmesh signaling server/);
  start("ws://one");
  last().joined();
  last().end(4410, "replaced");
  expect(log.at(-1)).toMatch(/^stopped: a newer connection/);
});

test("a server that is silent after a ping is left", () => {
  start("ws://one");
  last().joined();
  vi.advanceTimersByTime(17_000);
  expect(last().sent.at(-1)).toBe('{"type":"ping"}');
  last().say({ type: "pong" });
  vi.advanceTimersByTime(17_000);
  expect(sockets.length).toBe(1);
  vi.advanceTimersByTime(10_000);
  expect(log.at(-1)).toMatch(/^(waiting|connecting)/);
});

test("waking up ends a wait, and asks a server for a sign of life", () => {
  start("ws://one");
  last().end(1006);
  client.wake();
  expect(sockets.length).toBe(2);
  last().joined();
  client.wake();
  expect(last().sent.at(-1)).toBe('{"type":"ping"}');
});

test("members missing after a restart of the server have a while to come back", () => {
  start("ws://one");
  last().joined([other]);
  last().end(1001, "shutdown");
  vi.advanceTimersByTime(500);
  last().joined([]);
  vi.advanceTimersByTime(14_000);
  last().say({ type: "pong" });
  vi.advanceTimersByTime(14_000);
  expect(log).not.toContain("gone Ag");
  last().say({ type: "pong" });
  vi.advanceTimersByTime(3_000);
  expect(log).toContain("gone Ag");
});

test("credentials are renewed before they end, by a join that nobody notices", () => {
  start("ws://one");
  last().joined([other], 100);
  for (let seconds = 0; seconds < 79; seconds++) {
    vi.advanceTimersByTime(1000);
    last().say({ type: "pong" });
  }
  expect(sockets.length).toBe(1);
  vi.advanceTimersByTime(1_500);
  expect(sockets.length).toBe(2);
});

test("a frame that is no message ends the connection, not the client", () => {
  start("ws://one");
  last().joined();
  last().say({ type: "signal", from: "short", sealed: "x" });
  expect(log.at(-1)).toMatch(/^waiting: the frame is not a message/);
  vi.advanceTimersByTime(500);
  expect(sockets.length).toBe(2);
});
