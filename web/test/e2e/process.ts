// Real programs under test: started on free ports, killed by their own id, their output kept for when a test fails.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../../bin/", import.meta.url));

/** How long a program may take to start or to stop, in ms: far more than it does, also on a busy machine. */
const TIMEOUT = 60_000;

/** Where the ports of this process begin. Below 32768, where systems give no ports to connections that go out. */
const FIRST_PORT = 20_000 + (process.pid % 120) * 100;
let ports = 0;

/** The path of bin/NAME; `make build` makes it. */
export function program(name: string): string {
  const path = bin + name;
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`make build\` first`);
  return path;
}

/** One running program, of bin/ or with its path. Whoever starts it stops it. */
export class Program {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  #output = "";

  constructor(name: string, args: readonly string[]) {
    this.#child = spawn(name.startsWith("/") ? name : program(name), args, {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#exited = new Promise((resolve, reject) => {
      this.#child.once("exit", () => resolve());
      this.#child.once("error", reject);
    });
    const keep = (data: Buffer) => {
      this.#output += data.toString();
    };
    this.#child.stdout?.on("data", keep);
    this.#child.stderr?.on("data", keep);
  }

  get output(): string {
    return this.#output;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Waits until `url` answers with success; fails at once if the program ends. */
  async ready(url: string): Promise<void> {
    const deadline = Date.now() + TIMEOUT;
    for (;;) {
      if (!this.running) throw new Error(`the program ended before it was ready:\n${this.#output}`);
      const ok = await fetch(url).then(
        (r) => r.ok,
        () => false,
      );
      if (ok) return;
      if (Date.now() > deadline) throw new Error(`${url} did not answer in ${TIMEOUT} ms:\n${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** SIGKILL: no goodbye, nothing flushed. Resolves once the process is gone. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  /** SIGTERM; resolves with the exit code. One that does not end in time is killed, and that is an error. */
  async stop(): Promise<number | null> {
    if (this.running) {
      this.#child.kill("SIGTERM");
      const late = setTimeout(() => this.#child.kill("SIGKILL"), TIMEOUT);
      await this.#exited;
      clearTimeout(late);
      if (this.#child.signalCode === "SIGKILL")
        throw new Error(`the program did not stop in ${TIMEOUT} ms:\n${this.#output}`);
    }
    return this.#child.exitCode;
  }
}

/** Runs a program to its end; rejects with what it printed if its exit code is not 0. Resolves with its standard output. */
export async function run(name: string, ...args: string[]): Promise<string> {
  const child = spawn(program(name), args, { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.on("data", (data: Buffer) => {
    out += data.toString();
  });
  child.stderr.on("data", (data: Buffer) => {
    err += data.toString();
  });
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("close", resolve);
    child.once("error", reject);
  });
  if (code !== 0) throw new Error(`${name} ${args.join(" ")} ended with ${code}: ${err}${out}`);
  return out;
}

/**
 * A TCP port of the loopback that is free now, and stays so until a program listens there, also a second time: nobody else is given it
 * meanwhile, neither a connection that goes out nor another test.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST_PORT + (ports++ % 100);
    if (await isFree(port)) return port;
    if (ports >= 1000) throw new Error(`no port from ${FIRST_PORT} on is free`);
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
