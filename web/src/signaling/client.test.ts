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
    const list = members.map((peer) => ({ peer, meta: { replica: false, reader: false, name: "n" } }));
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
let joinToken: string | undefined;

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
    meta: { replica: false, reader: false, name: "me" },
    events,
    joinToken,
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
  joinToken = undefined;
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

test("joins again as the same member when the answer to its first join was lost", () => {
  start("ws://one");
  last().open();
  const { token } = JSON.parse(last().sent[0] ?? "");
  last().end(1006);
  vi.advanceTimersByTime(500);
  expect(sockets.length).toBe(2);
  last().joined([other]);
  expect(JSON.parse(last().sent[0] ?? "").token).toBe(token);
});

test("leaves, also before it has heard that it joined", () => {
  for (const join of [() => last().open(), () => last().joined()]) {
    start("ws://one");
    join();
    client.close();
    expect(last().sent.map((frame) => JSON.parse(frame).type)).toEqual(["join", "leave"]);
    expect(last().readyState).toBe(3);
  }
  start("ws://one");
  client.close(); // with nobody to say it to
  expect(last().sent).toEqual([]);
});

test("joins, and joins again with its token", () => {
  start("ws://one", "ws://two");
  last().joined([other]);
  expect(JSON.parse(last().sent[0] ?? "")).toEqual({
    type: "join",
    room,
    peer: self,
    token: expect.stringMatching(/^[-\w]{26,64}$/),
    meta: { replica: false, reader: false, name: "me" },
  });
  expect(client.signal(other, "abc")).toBe(true);
  last().say({ type: "signal", from: other, sealed: "xyz" });
  last().end(1006);
  expect(client.signal(other, "abc")).toBe(false);
  vi.advanceTimersByTime(500);
  expect(sockets.length).toBe(2);
  last().joined([other]);
  expect(JSON.parse(last().sent[0] ?? "").token).toBe("tok");
  expect(log.filter((line) => line.startsWith("member"))).toEqual(["member Ag"]);
  expect(log).toContain("signal Ag xyz");
});

test("takes the next address after each failed attempt, and the first one again after a lost connection", () => {
  start("ws://one", "ws://two", "ws://three", "ws://four");
  const at = () => last().url.slice(5);
  last().end(1006);
  vi.advanceTimersByTime(500);
  expect(at()).toBe("two");
  last().end(1006);
  vi.advanceTimersByTime(1000);
  expect(at()).toBe("three");
  last().joined([other], 10);
  vi.advanceTimersByTime(8000); // new credentials are fetched where the other members are
  expect([sockets.length, at()]).toEqual([4, "three"]);
  last().joined([other]);
  last().end(1006);
  vi.advanceTimersByTime(500);
  expect(at()).toBe("one");
  last().end(1006);
  client.wake(); // another network: the first one may be back
  expect(at()).toBe("one");
  last().end(1006);
  vi.advanceTimersByTime(500);
  expect(at()).toBe("two");
  last().joined([other]);
  client.wake();
  vi.advanceTimersByTime(1000); // no answer
  expect(at()).toBe("one");
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

test("stops at addresses that are no server of ours", () => {
  start("ws://one", "ws://two");
  last().end(1002, "subprotocol");
  vi.advanceTimersByTime(500);
  expect(last().url).toBe("ws://two");
  last().end(1002, "subprotocol");
  vi.advanceTimersByTime(60_000);
  expect(sockets.length).toBe(2);
  expect(log.at(-1)).toMatch(/^stopped: .*no crmesh signaling server/);
});

// Returns how long the client waits for its next socket, in ms.
function wait(): number {
  const n = sockets.length;
  let waited = 0;
  for (; sockets.length === n && waited < 600_000; waited += 100) vi.advanceTimersByTime(100);
  return waited;
}

test("takes its place back, and longer and longer after each time another one took it", () => {
  start("ws://one");
  const waits: number[] = [];
  for (let i = 1; i <= 12; i++) {
    last().joined();
    expect(JSON.parse(last().sent[0] ?? "")).toMatchObject({ peer: self, ...(i > 1 && { token: "tok" }) });
    last().end(4410, i % 2 ? "replaced" : "");
    expect(log.at(-1)).toMatch(i < 3 ? /^waiting: .*trying again$/ : /^waiting: .*reload this page/);
    waits.push(wait());
  }
  const seconds = [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
  expect(waits).toEqual(seconds.map((s) => s * 1000));
  last().joined(); // and the other one waits as long
  for (let s = 0; s < 300; s += 10) {
    vi.advanceTimersByTime(10_000);
    last().say({ type: "pong" });
  }
  last().end(4410, "replaced");
  expect(wait()).toBe(300_000);
});

test("forgets after a long time that others took its place", () => {
  start("ws://one");
  for (let i = 0; i < 4; i++) {
    last().joined();
    last().end(4410, "replaced");
    wait();
  }
  last().joined();
  for (let s = 0; s < 900; s += 10) {
    vi.advanceTimersByTime(10_000);
    last().say({ type: "pong" });
  }
  last().end(4410, "replaced");
  expect(log.at(-1)).toMatch(/^waiting: .*trying again$/);
  expect(wait()).toBe(500);
});

test("what one connection took over does not lengthen the wait after another break", () => {
  start("ws://one");
  for (let i = 0; i < 8; i++) {
    last().joined();
    last().end(4410, "replaced");
    wait();
  }
  last().joined();
  last().end(1006);
  expect(wait()).toBe(500);
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

test("after waking up, a server that does not answer is left at once, and one that does is kept", () => {
  start("ws://one");
  last().joined();
  client.wake();
  last().say({ type: "pong" });
  vi.advanceTimersByTime(5_000);
  expect(sockets.length).toBe(1);
  client.wake();
  client.wake();
  vi.advanceTimersByTime(900);
  expect(sockets.length).toBe(1);
  vi.advanceTimersByTime(200);
  expect(sockets.length).toBe(2);
  expect(log.slice(-2)).toEqual([expect.stringMatching(/^waiting: /), "connecting"]);
  client.wake(); // the attempt has just begun
  expect(sockets.length).toBe(2);
  vi.advanceTimersByTime(1_500);
  client.wake();
  expect(sockets.length).toBe(3);
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

test("moves to the server's successor, at the same address, with its token, when it is told to", () => {
  start("ws://one", "ws://two");
  last().joined([other]);
  last().say({ type: "moving", within: 5 });
  vi.advanceTimersByTime(4_000);
  last().say({ type: "moving", within: 5 }); // puts nothing off
  vi.advanceTimersByTime(900);
  expect(sockets.length).toBe(1);
  expect(client.signal(other, "abc")).toBe(true);
  vi.advanceTimersByTime(100);
  expect(sockets.map((s) => s.url)).toEqual(["ws://one", "ws://one"]);
  last().joined([]);
  expect(JSON.parse(last().sent[0] ?? "").token).toBe("tok");
  expect(log.filter((line) => /^(gone|waiting)/.test(line))).toEqual([]);
  last().say({ type: "moving", within: 1_000_000 });
  vi.advanceTimersByTime(10_000);
  last().say({ type: "pong" });
  for (let seconds = 10; seconds < 60; seconds++) {
    vi.advanceTimersByTime(1000);
    last().say({ type: "pong" });
  }
  expect(sockets.length).toBe(3);
});

test("a frame that is no message ends the connection, not the client", () => {
  start("ws://one");
  last().joined();
  last().say({ type: "signal", from: "short", sealed: "x" });
  expect(log.at(-1)).toMatch(/^waiting: the frame is not a message/);
  vi.advanceTimersByTime(500);
  expect(sockets.length).toBe(2);
});

test("shows its join token; one that is not good is asked for, and tried again when the server wants", () => {
  joinToken = "a-token";
  start("ws://one");
  last().open();
  expect(JSON.parse(last().sent[0] ?? "").admission).toBe("a-token");
  last().say({ type: "error", code: "not-admitted", message: "no", retryAfter: 60 });
  last().end(4403, "not-admitted");
  expect(log.at(-1)).toMatch(/^waiting: the signaling server asks for a join token/);
  vi.advanceTimersByTime(59_000);
  expect(sockets).toHaveLength(1);
  vi.advanceTimersByTime(2000);
  expect(sockets).toHaveLength(2);
});
