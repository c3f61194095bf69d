// A running bin/peer, through its HTTP API.

import type { Program } from "./process.ts";

/** A value as the API's JSON has it. */
export type Json = null | number | string | { readonly blob: string } | { readonly integer: string };

/** What a verification found, as far as tests look at it. */
export interface VerifyReport {
  readonly identical: number;
  readonly total: number;
  readonly members: readonly {
    readonly role?: string;
    readonly outcome: string;
    readonly error?: string;
    readonly repaired: number;
    readonly tables: readonly {
      readonly table: string;
      readonly rows: readonly { readonly key: readonly Json[]; readonly better: string }[];
    }[];
  }[];
}

/** What the tests look at of /v1/status. */
export interface ReplicaStatus {
  readonly members: {
    readonly peer: string;
    readonly live: boolean;
    readonly path?: { readonly local: string; readonly remote: string };
    readonly site?: string;
    readonly sameSchema: boolean;
    readonly schemaDifference?: readonly string[];
  }[];
  readonly parked: { readonly changes: number };
  readonly relay: { readonly passed: number; readonly received: number };
}

export class Replica {
  readonly program: Program;
  readonly #api: string;

  constructor(program: Program, api: string) {
    this.program = program;
    this.#api = api;
  }

  /** Runs SQL that writes; resolves once it is durable. */
  async exec(sql: string, ...args: Json[]): Promise<void> {
    await this.#post("exec", { sql, args });
  }

  async query(sql: string, ...args: Json[]): Promise<Json[][]> {
    const { rows } = (await this.#post("query", { sql, args })) as { rows: Json[][] };
    return rows;
  }

  async status(): Promise<ReplicaStatus> {
    const answer = await fetch(`${this.#api}/v1/status`);
    return (await answer.json()) as ReplicaStatus;
  }

  async verify(options: object): Promise<VerifyReport> {
    const lines = (await this.#text("verify", options)).trimEnd().split("\n");
    const { report, error } = JSON.parse(lines.at(-1) ?? "") as { report?: VerifyReport; error?: string };
    if (!report) throw new Error(`verify: ${error}`);
    return report;
  }

  async #post(what: string, body: unknown): Promise<unknown> {
    return JSON.parse(await this.#text(what, body));
  }

  async #text(what: string, body: unknown): Promise<string> {
    const answer = await fetch(`${this.#api}/v1/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${what}: ${answer.status} ${text}`);
    return text;
  }
}
