// Runs the traces of pkg/mesh/syncproto/testdata/traces: commands behind "> ", and what comes of them. The README beside
// them has the format.

import { marshal } from "../codec.ts";
import {
  MaxMessage,
  type Message,
  SchemaHashLen,
  TypeBye,
  TypeChanges,
  TypeHave,
  TypeHello,
} from "../message.ts";
import { FeedTimeoutTicks } from "../ops.ts";
import { flags, letter, vectorText, when } from "./log.ts";
import { type Conn, type End, Network, otherEnd, type Peer, siteOf } from "./network.ts";
import type { Write } from "./store.ts";

// Ticks that stabilize waits: for stillness, and at most.
export const quietTicks = FeedTimeoutTicks / 4;
export const settleTicks = 4 * FeedTimeoutTicks;

/** Runs a trace and returns it with the output that came out. Comments stay as they are. */
export function runTrace(text: string): string {
  const trace = new Trace();
  let result = "";
  let expected = false;
  for (const line of text.replace(/\n+$/, "").split("\n")) {
    if (line.startsWith("> ")) {
      trace.command(line.slice(2).trim().split(/\s+/));
      result += `${line}\n${trace.out.map((out) => `${out}\n`).join("")}`;
      trace.out = [];
      expected = true;
    } else if (line === "" || line.startsWith("#")) {
      expected = false;
      result += `${line}\n`;
    } else if (!expected) {
      throw new Error(`a command begins with "> ": ${line}`);
    }
  }
  return result;
}

class Trace {
  readonly net = new Network();
  out: string[] = [];

  constructor() {
    this.net.log = (line) => this.out.push(line);
  }

  command([name = "", ...args]: string[]): void {
    const run = commands[name];
    if (!run) throw new Error(`no such command: ${name}`);
    run(this, args);
  }

  find(name = ""): Peer {
    const p = this.net.peers.find((peer) => peer.name === name);
    if (!p) throw new Error(`no peer ${name}`);
    return p;
  }

  /** The connection of a command's "a->b", and which end of it is a. */
  direction(arg = ""): { c: Conn; from: End; a: string; b: string } {
    const [a = "", b = ""] = arg.split("->");
    const c = this.conn(a, b);
    return { c, from: c.ends[0].name === a ? 0 : 1, a, b };
  }

  conn(a = "", b = ""): Conn {
    const c = this.net.find(this.find(a), this.find(b));
    if (!c) throw new Error(`no link between ${a} and ${b}`);
    return c;
  }
}

const commands: Readonly<Record<string, (t: Trace, args: string[]) => void>> = {
  peer: (t, [name = "", ...rest]) => void t.net.add(name, !rest.includes("reader")),
  link: (t, [a, b]) => void t.net.connect(t.find(a), t.find(b)),
  cut: (t, [a, b]) => {
    const c = t.conn(a, b);
    t.net.cut(c);
    for (const p of c.ends) t.net.pump(p);
  },
  stall: (t, [a, b]) => {
    const c = t.conn(a, b);
    c.stalled = !c.stalled;
  },
  crash: (t, [a]) => t.net.crash(t.find(a)),
  write: (t, [a, ...args]) => t.find(a).commit(args.flatMap(writesOf)),
  refuse: (t, [a, key]) => {
    t.find(a).store.refuses = key;
  },
  migrate: (t, [a, generation]) => {
    t.find(a).migrate(Number(generation));
    t.net.pump(t.find(a));
  },
  table: (t, [a, ...sql]) => {
    const p = t.find(a);
    p.createTable(sql[0] ?? "", `CREATE TABLE ${sql.join(" ")}`);
    t.net.pump(p);
  },
  chunk: (t, [n]) => {
    t.net.chunk = Number(n);
  },
  commit: (t, [a]) => {
    const p = t.find(a);
    p.notify();
    t.net.pump(p);
  },
  read: (t, [a, b]) => {
    const p = t.find(a);
    for (const r of [...p.reads]) {
      const at = t.net.end(p, r.request.link);
      if (b !== undefined && at?.conn.ends[otherEnd(at.i)].name !== b) continue;
      p.answer(p.reads.indexOf(r));
      t.net.pump(p);
    }
  },
  snapshot: (t, [a]) => {
    const p = t.find(a);
    p.reads.forEach((_, i) => {
      p.carryOut(i);
    });
  },
  apply: (t, [a]) => {
    const p = t.find(a);
    if (!p.apply) return;
    p.answer(p.reads.length);
    t.net.pump(p);
  },
  deliver: (t, [arg, count]) => {
    const { c, from } = t.direction(arg);
    for (let n = count === undefined ? c.queues[from].length : Number(count); n > 0; n--) {
      t.net.deliver(c, from);
      t.net.pump(c.ends[otherEnd(from)]);
    }
  },
  send: (t, [arg, what = ""]) => {
    const { c, from, a, b } = t.direction(arg);
    c.queues[from].push(marshal(injected(what, a, b)));
  },
  settle: (t) => t.net.settle(),
  tick: (t, [n]) => {
    for (let i = Number(n); i > 0; i--) {
      t.net.tick();
      t.net.settle();
    }
  },
  stabilize: (t) => {
    if (!t.net.run(quietTicks, settleTicks)) t.out.push("does not settle");
  },
  show: (t, [a]) => show(t, t.find(a)),
};

// key=value; key*n=value stands for keys key0 to key(n-1).
function writesOf(arg: string): Write[] {
  const [key = "", value] = arg.split("=");
  const [base = "", times] = key.split("*");
  if (times === undefined) return [{ key, value: Number(value) }];
  return Array.from({ length: Number(times) }, (_, i) => ({ key: base + i, value: Number(value) }));
}

// A message that a's core did not make.
function injected(what: string, a: string, b: string): Message {
  const none = { neighbours: undefined, feed: false, busy: false };
  switch (what) {
    case "changes":
      return {
        type: TypeChanges,
        reached: 0,
        remaining: 0,
        groups: [],
        claims: undefined,
        deps: undefined,
        spans: [],
      };
    case "have":
      return { type: TypeHave, ...none, applied: 1, delta: new Map() };
    case "stale":
      return { type: TypeHave, ...none, applied: 0, delta: new Map([[siteOf(b), 1000]]) };
    case "hello":
      return {
        type: TypeHello,
        site: siteOf(a),
        writer: false,
        feed: false,
        busy: false,
        proof: new Uint8Array(0),
        schemaHash: new Uint8Array(SchemaHashLen),
        maxMessage: MaxMessage,
        resume: 0,
        neighbours: [],
        vector: new Map(),
      };
    case "bye":
      return { type: TypeBye, sentence: "leaving" };
    default:
      throw new Error(`no message ${what}`);
  }
}

// A peer's state, and of each of its links what is not as it is at rest.
function show(t: Trace, p: Peer): void {
  const cells = [...p.store.cells()].sort(([a], [b]) => (a < b ? -1 : 1));
  const values = cells.slice(0, 8).map(([key, { value }]) => `${key}=${value}`);
  if (cells.length > 8) values.push(`and ${cells.length - 8} more`);
  const s = p.core.status();
  const head = `${p.name} holds ${values.join(" ")} vector=${vectorText(s.vector)} newest=${s.newest}`;
  t.out.push(head + flags(when(s.synced, "synced")));
  for (const l of s.links) {
    const set = flags(
      when(l.live, "live"),
      when(l.serving, "serving"),
      when(l.catchingUp, "catching up"),
      when(l.writer, "writer"),
    );
    t.out.push(
      `${p.name} to ${letter(l.remote)}:${set} sent=${l.sent} held=${l.held} inflight=${l.inFlight} received=${l.received} queued=${l.queued} waiting=${l.waiting} behind=${l.behind} ahead=${l.ahead}`,
    );
  }
}
