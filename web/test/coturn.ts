// A real TURN server for tests: Debian's coturn on loopback, with the configuration that operators are given.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Program } from "./e2e/process.ts";

const path = "/usr/bin/turnserver";
const example = fileURLToPath(new URL("../../examples/coturn/turnserver.conf", import.meta.url));

/** Whether the tests that need coturn are to be left out: it is not installed, and this is not CI. */
export const withoutCoturn = !existsSync(path) && !process.env.CI;

/** The secret that it shares with the signaling server. */
export const turnSecret = "the secret of the TURN server";

export class Coturn {
  readonly program: Program;
  readonly port: number;
  readonly #dir = mkdtempSync(join(tmpdir(), "crmesh-coturn-"));

  private constructor(port: number) {
    if (!existsSync(path)) throw new Error(`${path} is missing: install coturn`);
    this.port = port;
    let config = readFileSync(example, "utf8");
    for (const [from, to] of [
      ["listening-port=3478", `listening-port=${port}`],
      ["static-auth-secret=CHANGE-ME", `static-auth-secret=${turnSecret}`],
      ["denied-peer-ip=127.0.0.0-127.255.255.255", ""],
    ] as const) {
      if (!config.includes(from)) throw new Error(`the example lacks ${from}`);
      config = config.replace(from, to);
    }
    config += ["listening-ip=127.0.0.1", "relay-ip=127.0.0.1", "allow-loopback-peers", "verbose"].join("\n");
    config += [
      "",
      "log-file=stdout",
      "simple-log",
      `pidfile=${this.#dir}/pid`,
      `userdb=${this.#dir}/db\n`,
    ].join("\n");
    const file = join(this.#dir, "turnserver.conf");
    writeFileSync(file, config);
    this.program = new Program(path, ["-c", file]);
  }

  static async start(port: number): Promise<Coturn> {
    const server = new Coturn(port);
    for (const deadline = Date.now() + 60_000; !(await answers(port)); ) {
      if (!server.program.running || Date.now() > deadline)
        throw new Error(`coturn does not answer:\n${server.program.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return server;
  }

  /** When the credentials end that relays were given for, Unix seconds. */
  get expiries(): number[] {
    const lines = this.program.output.matchAll(
      /user <(\d+):[^>]+>: incoming packet ALLOCATE processed, success/g,
    );
    return [...lines].map(([, seconds]) => Number(seconds));
  }

  /** How many bytes came from members in relays that it has counted. */
  get received(): number {
    const lines = this.program.output.matchAll(/usage: realm=<[^>]*>, username=<[^>]*>, rp=\d+, rb=(\d+)/g);
    return [...lines].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
  }

  async kill(): Promise<void> {
    await this.program.kill();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
