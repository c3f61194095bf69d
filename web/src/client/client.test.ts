// Clients of several tabs in one process: everything real but the Workers, and what a browser gives to its tabs.

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ExecAnswer, QueryAnswer } from "../worker/protocol.ts";
import { type Client, createRoom, open } from "./client.ts";
import { FakeWorker, sleep, stubBrowser } from "./testing/browser.ts";

const base = "http://127.0.0.1:9/";
const none: QueryAnswer = { columns: [], rows: [] };
const never = new Promise<never>(() => {});
const clients: Client[] = [];

let link: string;

beforeEach(async () => {
  stubBrowser();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
  link = (await createRoom(base)).write ?? "";
});

afterEach(async () => {
  const closed = Promise.all(clients.splice(0).map((c) => c.close()));
  await vi.advanceTimersByTimeAsync(5_000);
  await closed;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

interface Answers {
  exec?: () => Promise<ExecAnswer>;
  query?: (sql: string) => Promise<QueryAnswer>;
}

/** A tab with the room open, and the Worker that it has once it leads. */
async function tab(answers: Answers = {}): Promise<{ client: Client; worker: FakeWorker }> {
  const exec = answers.exec ?? (async () => ({ changes: 1 }));
  const query = answers.query ?? (async () => none);
  const worker = new FakeWorker(exec, query);
  const client = await open({ room: link, worker: () => worker as unknown as Worker });
  clients.push(client);
  return { client, worker };
}

/** What has become of a promise. */
function outcome(of: Promise<unknown>): { is: unknown } {
  const seen: { is: unknown } = { is: "waits" };
  of.then(
    () => {
      seen.is = "done";
    },
    (error: Error) => {
      seen.is = error.message;
    },
  );
  return seen;
}

test("what a tab waits for when the leader is closed is done by the next leader, however long the leader takes to close", async () => {
  const a = await tab({ exec: () => never, query: () => never });
  const b = await tab();
  const write = outcome(b.client.exec("INSERT"));
  const read = outcome(b.client.query("SELECT"));
  await vi.advanceTimersByTimeAsync(100);
  expect(a.worker.ids.length).toBe(1);
  const closed = a.client.close();
  await vi.advanceTimersByTimeAsync(5_000);
  await closed;
  expect([write.is, read.is]).toEqual(["done", "done"]);
  expect(b.worker.ids).toEqual(a.worker.ids);
});

test("a tab whose Worker fails says so, and the next one takes over", async () => {
  const a = await tab({ exec: () => never });
  const b = await tab();
  const write = outcome(b.client.exec("INSERT"));
  const own = outcome(a.client.exec("INSERT"));
  await vi.advanceTimersByTimeAsync(100);
  a.worker.fail("out of memory");
  await vi.advanceTimersByTimeAsync(5_000);
  expect(own.is).toContain("out of memory");
  expect(a.client.status().problem).toContain("out of memory");
  await expect(a.client.query("SELECT")).rejects.toThrow("out of memory");
  expect(a.worker.terminated).toBe(true);
  expect(write.is).toBe("done");
  expect(b.client.status()).toMatchObject({ leader: true, problem: undefined });
});

test("a listener that throws keeps nothing from anybody else", async () => {
  const reported: unknown[] = [];
  vi.stubGlobal("reportError", (error: unknown) => reported.push(error));
  const a = await tab();
  const b = await tab();
  const seen: string[] = [];
  b.client.subscribe(() => {
    throw new Error("a fault of the page");
  });
  b.client.onChange(() => {
    throw new Error("a fault of the page");
  });
  b.client.subscribe(() => seen.push("status"));
  b.client.onChange(() => seen.push("change"));
  a.worker.page.note("changed", { tables: ["t"] });
  const closed = a.client.close();
  await vi.advanceTimersByTimeAsync(5_000);
  await closed;
  expect(await b.client.exec("INSERT")).toEqual({ changes: 1 });
  expect(b.client.status()).toMatchObject({ leader: true, problem: undefined });
  expect(seen).toEqual(expect.arrayContaining(["status", "change"]));
  expect(reported.length).toBeGreaterThan(0);
});

test("a listener that was ended is not called, also by one before it", async () => {
  const { client, worker } = await tab();
  let calls = 0;
  client.onChange(() => end());
  const end = client.onChange(() => calls++);
  worker.page.note("changed", { tables: ["t"] });
  await vi.advanceTimersByTimeAsync(1_000);
  expect(calls).toBe(0);
});

test("a leader that sleeps is told of, and what waits for it is done once it wakes up", async () => {
  await tab();
  const b = await tab();
  const problem = b.client.status().problem;
  expect(problem).toBeUndefined();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(b.client.status().problem).toBeUndefined();
  const wakeUp = sleep(0);
  const write = outcome(b.client.exec("INSERT"));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(write.is).toBe("waits");
  expect(b.client.status().problem).toContain("does not answer");
  const third = outcome(tab());
  const refused = async () => {
    await vi.advanceTimersByTimeAsync(1_000); // and before it asks, it derives its keys, in time of its own
    expect(third.is).toContain("does not answer");
  };
  await vi.waitFor(refused, { timeout: 30_000, interval: 10 });
  wakeUp();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(write.is).toBe("done");
  expect(b.client.status().problem).toBeUndefined();
});

test("a tab that slept through the change of the leader finds the new one", async () => {
  const a = await tab();
  const b = await tab();
  const c = await tab();
  sleep(2); // and what comes in is lost, as it may be for a page that is kept for going back
  const closed = a.client.close();
  await vi.advanceTimersByTimeAsync(5_000);
  await closed;
  expect(b.client.status().leader).toBe(true);
  sleep(1)();
  const write = outcome(c.client.exec("INSERT"));
  await vi.advanceTimersByTimeAsync(30_000);
  expect(write.is).toBe("done");
});

test("a tab with another version of the page is told so", async () => {
  await tab();
  const channel = new BroadcastChannel(`crmesh:room-${link.slice(base.length + 1).split(".")[0]}`);
  const answers: string[] = [];
  channel.onmessage = ({ data }) => {
    const params = { room: "as before there were versions", writer: true };
    const body = { call: 1, method: "join", params };
    if (data.kind === "lead") channel.postMessage({ kind: "call", to: data.from, from: "other", body });
    if (data.kind === "answer") answers.push(data.body.error.message);
  };
  channel.postMessage({ kind: "knock" });
  await vi.advanceTimersByTimeAsync(100);
  expect(answers).toEqual([expect.stringContaining("another version of this page")]);
});
