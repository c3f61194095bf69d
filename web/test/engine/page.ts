// The page of the engine's browser test: starts and ends workers, and passes calls to them.

import type { Call, Reply } from "./worker.ts";

interface Running {
  worker: Worker;
  waiting: Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>;
  /** The last row that the worker's writing has acknowledged. */
  acked: number;
}

const workers = new Map<string, Running>();
let calls = 0;

const harness = {
  start(name: string): void {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    const running: Running = { worker, waiting: new Map(), acked: 0 };
    workers.set(name, running);
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if ("acked" in data) {
        running.acked = data.acked;
        return;
      }
      const waiting = running.waiting.get(data.id);
      running.waiting.delete(data.id);
      if (data.error !== undefined) waiting?.reject(new Error(data.error));
      else waiting?.resolve(data.result);
    };
  },
  call(name: string, method: Call["method"], ...args: unknown[]): Promise<unknown> {
    const running = workers.get(name);
    if (running === undefined) throw new Error(`no worker ${name}`);
    const id = calls++;
    return new Promise((resolve, reject) => {
      running.waiting.set(id, { resolve, reject });
      running.worker.postMessage({ id, method, args } satisfies Call);
    });
  },
  acked: (name: string): number => workers.get(name)?.acked ?? 0,
  terminate(name: string): number {
    const running = workers.get(name);
    const acked = running?.acked ?? 0;
    running?.worker.terminate();
    workers.delete(name);
    return acked;
  },
};

export type Harness = typeof harness;

Object.assign(globalThis, { harness });
