import { expect, test } from "vitest";
import { type Port, RemoteError, Rpc } from "./rpc.ts";

interface Far {
  add(p: { a: number; b: number }): Promise<number>;
  fail(p: null): void;
  tell(p: string): void;
}

// Two ports, each of which hears clones of what is posted at the other.
function pipe(): [Port, Port] {
  const receivers: ((message: unknown) => void)[] = [() => {}, () => {}];
  const port = (own: 0 | 1): Port => ({
    post: (message, transfer) => {
      const clone = structuredClone(message, { transfer });
      queueMicrotask(() => receivers[1 - own]?.(clone));
    },
    listen: (receive) => {
      receivers[own] = receive;
    },
  });
  return [port(0), port(1)];
}

function setUp() {
  const [here, there] = pipe();
  const told: string[] = [];
  const far: Far = {
    add: async ({ a, b }) => a + b,
    fail: () => {
      throw new RangeError("too far");
    },
    tell: (what) => {
      told.push(what);
    },
  };
  new Rpc<Far, object>(there, far);
  return { rpc: new Rpc<object, Far>(here, {}), told };
}

test("calls are answered, each with its own result", async () => {
  const { rpc } = setUp();
  const results = await Promise.all([rpc.call("add", { a: 1, b: 2 }), rpc.call("add", { a: 3, b: 4 })]);
  expect(results).toEqual([3, 7]);
});

test("errors keep their name and message", async () => {
  const { rpc } = setUp();
  const error = await rpc.call("fail", null).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(RemoteError);
  expect(error).toMatchObject({ name: "RangeError", message: "too far" });
});

test("notes arrive in order, and nothing inherited can be called", async () => {
  const { rpc, told } = setUp();
  rpc.note("tell", "a");
  rpc.note("tell", "b");
  await expect(rpc.call("toString" as never, null as never)).rejects.toThrow("does not know toString");
  expect(told).toEqual(["a", "b"]);
});

test("an end rejects what waits, and what comes later", async () => {
  const { rpc } = setUp();
  const waiting = rpc.call("add", { a: 1, b: 2 });
  rpc.end(new Error("gone"));
  await expect(waiting).rejects.toThrow("gone");
  await expect(rpc.call("add", { a: 1, b: 2 })).rejects.toThrow("gone");
});
