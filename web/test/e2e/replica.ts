// A running bin/peer, through its HTTP API.

import type { Program } from "./process.ts";

/** A value as the API's JSON has it. */
export type Json = null | number | string | { readonly blob: string } | { readonly integer: string };

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

  async status(): Promise<{ members: { peer: string; live: boolean; site?: string }[] }> {
    const answer = await fetch(`${this.#api}/v1/status`);
    return (await answer.json()) as { members: { peer: string; live: boolean; site?: string }[] };
  }

  async #post(what: string, body: unknown): Promise<unknown> {
    const answer = await fetch(`${this.#api}/v1/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${what}: ${answer.status} ${text}`);
    return JSON.parse(text);
  }
}
